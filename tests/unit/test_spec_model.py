"""The model: what is stored is what was read, and nothing changes it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specs import make_spec
from tunesvc.spec import StudySpec
from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.yaml.document import spec_from_dict

NAMES = st.from_regex(r"[a-zA-Zäß学_][a-zA-Z0-9 ._/ä-]{0,10}[a-z0-9]", fullmatch=True).filter(
    lambda name: name != "trial"
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
REALS = st.floats(-1e6, 1e6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | REALS | TEXTS
DURATIONS = st.sampled_from([1, 0.5, "90s", "1h30m", "2d"])
BUDGETS = st.fixed_dictionaries(
    {"trials": st.integers(1, 10**6)},
    optional={"wall": DURATIONS, "gpu_hours": st.floats(0.01, 1e4)},
)


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    numbers = draw(st.sampled_from([st.integers(1, 10**6), st.floats(1e-6, 1e6)]))
    low, high = sorted([draw(numbers), draw(numbers)])
    extra = draw(st.sampled_from([{}, {"log": True}, {"step": 1}]))
    return {"min": low, "max": high, **extra}


PARAMETERS = ranges() | st.fixed_dictionaries(
    {"values": st.lists(SCALARS, min_size=1, max_size=4, unique_by=lambda value: value)}
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """Study files as plain data, conditions included."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    parameters = {name: draw(PARAMETERS) for name in names}
    if len(names) > 1 and "values" in parameters[names[0]]:
        parameters[names[-1]]["when"] = {
            names[0]: draw(st.sampled_from(parameters[names[0]]["values"]))
        }
    optional = {
        "description": TEXTS,
        "tags": st.lists(TEXTS, max_size=2),
        "sampler": st.sampled_from(["tpe", {"name": "qmc", "scramble": True, "seed": 3}]),
        "pruner": st.sampled_from(
            ["none", {"name": "asha", "min": 1, "options": [1, {"a": None}]}]
        ),
        "parallelism": st.integers(1, 64),
        "resources": st.sampled_from(
            [{"gpu": 0.5, "memory": "4GB", "custom": {"tpu": 1}}, {"workers": 2}]
        ),
        "limits": st.fixed_dictionaries({"wall": DURATIONS}),
        "environment": st.fixed_dictionaries({"env": st.dictionaries(NAMES, TEXTS, max_size=2)}),
        "seed": st.integers(0, 2**32 - 1),
        "constants": st.dictionaries(
            NAMES.filter(lambda n: n not in names), SCALARS | st.lists(SCALARS), max_size=2
        ),
    }
    fixed = {
        "name": NAMES,
        "metric": st.fixed_dictionaries({"name": NAMES, "target": REALS}),
        "budget": BUDGETS,
    }
    data = draw(st.fixed_dictionaries(fixed, optional=optional))
    return {**data, "entrypoint": "train:main", "parameters": parameters}


@given(data=studies())
def test_a_spec_comes_back_from_json_as_it_was_with_its_parameters_in_order(
    data: dict[str, Any],
) -> None:
    spec = spec_from_dict(data)
    again = StudySpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert list(again.parameters) == list(spec.parameters) == list(data["parameters"])
    assert again.sampler.options == spec.sampler.options
    assert [type(p) for p in again.parameters.values()] == [
        type(p) for p in spec.parameters.values()
    ]


@given(data=studies())
def test_a_spec_travels_to_other_processes_and_can_be_a_key_unless_a_constant_is_a_list(
    data: dict[str, Any],
) -> None:
    spec = spec_from_dict(data)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301  # our own bytes
    if not any(isinstance(constant, list) for constant in spec.constants.values()):
        assert {spec: 1}[spec_from_dict(data)] == 1


def test_nothing_of_a_spec_can_be_changed() -> None:
    spec = make_spec(resources={"custom": {"tpu": 1}})
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]
    for mapping in (spec.parameters, spec.constants, spec.resources.custom, spec.environment.env):
        assert isinstance(mapping, FrozenDict)
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping["x"] = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(a=2),
        lambda d: d.pop("a"),
        lambda d: d.clear(),
        lambda d: d.setdefault("b", 1),
        lambda d: d.popitem(),
        lambda d: d.__delitem__("a"),
        lambda d: d.__ior__({"a": 2}),
    ],
)
def test_a_frozen_dict_refuses_every_way_of_changing_it(change: Any) -> None:
    frozen = FrozenDict({"a": 1})
    with pytest.raises(TypeError):
        change(frozen)
    assert frozen == {"a": 1}
    assert frozen | {"b": 2} == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(90, 90.0), (0.5, 0.5), ("90s", 90.0), ("1h30m", 5400.0), ("1.5 h", 5400.0), ("3D", 259200.0)],
)
def test_a_duration_is_a_number_of_seconds_or_units(written: object, seconds: float) -> None:
    assert make_spec(limits={"wall": written}).limits.wall == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [(1000, 1000), ("512MB", 512 * 10**6), ("1.5GiB", 3 * 2**29), ("4 gb", 4 * 10**9), ("7", 7)],
)
def test_a_size_is_a_number_of_bytes_or_units(written: object, size: int) -> None:
    assert make_spec(resources={"memory": written}).resources.memory == size
