"""Search spaces as scikit-learn writes them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import expon, loguniform, norm, randint, uniform
from sklearn.svm import SVC

from tunesvc import Choice, Float, Int
from tunesvc.integrations.sklearn_search.param_space import ParamSpace


def test_distributions_become_ranges() -> None:
    given = {
        "a": uniform(1, 2),
        "b": loguniform(1e-3, 1e3),
        "c": randint(1, 10),
        "d": norm(0, 1),
        "e": expon(scale=10),
        "f": Float(0.0, 1.0),
        "g": randint(1, 1000),
    }
    written = ParamSpace.of(given).parameters
    assert written["a"] == Float(1.0, 3.0).as_written()
    assert written["b"] == Float(1e-3, 1e3, log=True).as_written()
    assert written["c"] == Int(1, 9).as_written()
    assert written["d"]["min"] == pytest.approx(-3.09, abs=0.01)
    assert not written["d"]["log"]
    assert written["e"]["log"]
    assert 0 < written["e"]["min"] < 1 < 10 < written["e"]["max"] < 100
    assert written["f"] == Float(0.0, 1.0).as_written()
    assert written["g"]["log"]


def test_any_objects_can_be_chosen_between() -> None:
    one, other = SVC(), SVC(C=2)
    values = {
        "step": [one, other, None, "passthrough"],
        "numbers": np.array([1, 10]),
        "mixed": [True, 1, 1.5, "1.5"],
        "same": [SVC(), SVC()],
        "sizes": Choice((8,), (8, 8)),
    }
    space = ParamSpace.of(values)
    for name, choices in values.items():
        labels = space.parameters[name]["values"]
        decoded = [space.decode({name: label})[name] for label in labels]
        expected = choices.values if isinstance(choices, Choice) else choices
        assert all(a is b or a == b for a, b in zip(decoded, expected, strict=True))
    assert space.decode({"step": space.parameters["step"]["values"][1]})["step"] is other
    assert space.decode({"mixed": 1}) == {"mixed": 1}


def test_of_several_dicts_each_trial_uses_one() -> None:
    space = ParamSpace.of([{"kernel": ["rbf"], "C": uniform(0, 1)}, {"kernel": ["linear"]}])
    assert space.parameters["C [0]"]["when"] == {"subspace": 0}
    assert space.decode({"subspace": 1, "kernel [1]": "linear"}) == {"kernel": "linear"}


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("C", TypeError, "not a dict or a list"),
        ([1], TypeError, "not a dict"),
        ({"C": 1}, TypeError, "'C' is a int .* use Float"),
        ({"C": "abc"}, TypeError, "'C' is a str"),
        ({"C": []}, ValueError, "'C' needs a non-empty"),
    ],
)
def test_what_is_no_space_is_refused(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ParamSpace.of(given)  # type: ignore[arg-type]
