"""Names and specs of the studies of a watch."""

from __future__ import annotations

from tests.support.specs import make_spec
from tunesvc.champions.watch_specs import family_of, folds_study, retune_spec, with_constants
from tunesvc.spec import Budget

VERSION = "1f3a9c20d41b"


def test_a_re_tune_has_half_of_each_limit() -> None:
    budget = Budget(trials=5, wall=60.0, gpu_hours=3.0, cost=10.0)
    spec = make_spec().model_copy(update={"budget": budget})
    halved = retune_spec(spec, VERSION, ()).budget
    assert halved.limits == {"trials": 3, "wall": 30.0, "gpu_hours": 1.5, "cost": 5.0}
    own = make_spec(watch={"budget": {"trials": 7}}, data={"source": "a.csv", "target": "y"})
    assert retune_spec(own, VERSION, ()).budget.trials == 7


def test_values_with_other_constants_are_in_another_study_of_the_family() -> None:
    spec = make_spec(name="shop")
    names = {
        folds_study(with_constants(spec, constants), VERSION)
        for constants in ({}, {"epochs": 10}, {"epochs": 20})
    }
    assert len(names) == 3
    assert {family_of(name) for name in names} == {"shop"}
    one, other = {"a": 1, "b": [2]}, {"b": [2], "a": 1}
    assert folds_study(with_constants(spec, one), VERSION) == folds_study(
        with_constants(spec, other), VERSION
    )
