"""Choices that are lists: scalars for the search, lists for the objective."""

from __future__ import annotations

import json
from random import Random

import pytest

from tunesvc.coordinator.spec_changes import wider
from tunesvc.errors import SpecError
from tunesvc.space.search_space import Space, sample
from tunesvc.spec import CategoricalParameter, IntParameter, StudySpec, as_choices, as_given
from tunesvc.spec.yaml.document import spec_from_dict

LAYERS = CategoricalParameter(values=((32, 16), (64, (1, "x")), "none"))


def a_study(**parameters: object) -> StudySpec:
    written = {
        "name": "s",
        "metric": "loss",
        "entrypoint": "m:f",
        "budget": 3,
        "parameters": parameters,
    }
    return spec_from_dict(written)


def test_the_search_knows_a_list_by_its_text_and_the_objective_gets_the_list() -> None:
    space = Space({"layers": LAYERS})
    assert space.size == 3
    drawn = {json.dumps(sample(space, Random(seed))) for seed in range(30)}
    assert drawn == {
        json.dumps({"layers": text}) for text in ("[32, 16]", '[64, [1, "x"]]', "none")
    }
    given = [as_given(json.loads(one), {"layers": LAYERS})["layers"] for one in sorted(drawn)]
    assert given == [[32, 16], [64, [1, "x"]], "none"]


def test_text_that_looks_like_a_list_stays_text() -> None:
    parameters = {"x": CategoricalParameter(values=("[1]", "[2]"))}
    assert as_given({"x": "[1]"}, parameters) == {"x": "[1]"}


def test_a_stored_study_with_lists_is_read_again_as_it_was() -> None:
    spec = a_study(
        layers={"values": [[32, 16], [64, 32]]},
        extra={"min": 1, "max": 3, "when": {"layers": [[32, 16]]}},
    )
    again = StudySpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec
    space = Space(again.parameters)
    assert space.active("extra", {"layers": "[32, 16]"})
    assert not space.active("extra", {"layers": "[64, 32]"})


def test_values_that_a_user_gives_are_held_against_the_space() -> None:
    space = Space({"layers": LAYERS, "n": IntParameter(type="int", min=1, max=3)})
    assert space.checked(as_choices({"layers": [32, 16], "n": 2})) == {"layers": "[32, 16]", "n": 2}
    with pytest.raises(SpecError, match=r"layers = '\[1, 2\]' is outside of"):
        space.checked(as_choices({"layers": [1, 2]}))


def test_lists_may_be_added_to_the_choices_of_a_study() -> None:
    spec = a_study(layers={"values": [[32, 16], [64, 32]]})
    change = {"parameters": {"layers": {"values": [[64, 32], [128]]}}}
    assert wider(spec, change).parameters["layers"] == CategoricalParameter(
        values=((32, 16), (64, 32), (128,))
    )
