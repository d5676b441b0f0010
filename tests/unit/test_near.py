"""Configurations near a trial's."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.specs import make_spec
from tunesvc.space.search_space import Space, near, place, sample
from tunesvc.spec.conditions import contains

PARAMETERS: dict[str, Any] = {
    "lr": {"type": "float", "min": 1e-5, "max": 1.0, "log": True},
    "dropout": {"type": "float", "min": 0.0, "max": 0.5, "step": 0.1},
    "width": {"type": "int", "min": 1, "max": 1024, "log": True},
    "depth": {"type": "int", "min": 1, "max": 9, "step": 2},
    "optimizer": {"values": ["sgd", "adam", None]},
    "momentum": {"type": "float", "min": 0.0, "max": 0.99, "when": {"optimizer": "sgd"}},
    "fixed": {"values": ["one"]},
}


def space_of(*names: str) -> Space:
    chosen = {name: PARAMETERS[name] for name in names or PARAMETERS}
    expanded = {
        name: {"type": "categorical", **p} if "values" in p else p for name, p in chosen.items()
    }
    return Space(make_spec(parameters=expanded).parameters)


def trial_of(space: Space, params: dict[str, Any]) -> FrozenTrial:
    distributions = {name: space.distributions[name] for name in params}
    return create_trial(
        state=TrialState.COMPLETE, value=0.0, params=params, distributions=distributions
    )


@given(seed=st.integers(0, 10_000))
def test_a_neighbour_is_a_configuration_of_the_space_and_another_one(seed: int) -> None:
    space = space_of()
    here = sample(space, Random(seed))
    there = near(space, trial_of(space, here), Random(seed + 1))
    assert there != here
    assert list(there) == [name for name in space.parameters if space.active(name, there)]
    assert all(contains(space.parameters[name], value) for name, value in there.items())


@given(seed=st.integers(0, 10_000))
def test_numbers_move_a_little_and_choices_stay(seed: int) -> None:
    space = space_of()
    here = sample(space, Random(seed))
    there = near(space, trial_of(space, here), Random(seed))
    assert there["optimizer"] == here["optimizer"]
    for name in ("lr", "width"):
        at, was = (
            place(space.distributions[name], there[name]),
            place(space.distributions[name], here[name]),
        )
        assert at is not None
        assert was is not None
        assert abs(at - was) < 0.35, "seven deviations"


def test_the_same_seed_finds_the_same_neighbour() -> None:
    space = space_of()
    trial = trial_of(space, sample(space, Random(3)))
    assert near(space, trial, Random(5)) == near(space, trial, Random(5))
    assert near(space, trial, Random(5)) != near(space, trial, Random(6))


@pytest.mark.parametrize("depth", [1, 9])
def test_at_the_end_of_a_coarse_range_there_is_a_step_inwards(depth: int) -> None:
    space = space_of("depth")
    found = {
        near(space, trial_of(space, {"depth": depth}), Random(seed))["depth"] for seed in range(30)
    }
    assert found == ({3} if depth == 1 else {7})


def test_without_numbers_one_choice_becomes_another_and_what_exists_then_is_drawn() -> None:
    space = space_of("optimizer", "momentum")
    there = near(space, trial_of(space, {"optimizer": "adam"}), Random(1))
    assert there["optimizer"] in ("sgd", None)
    assert ("momentum" in there) is (there["optimizer"] == "sgd")


def test_where_there_is_nothing_to_move_it_stays() -> None:
    space = space_of("fixed")
    assert near(space, trial_of(space, {"fixed": "one"}), Random(0)) == {"fixed": "one"}


def test_an_objective_that_declares_its_parameters_is_moved_within_what_it_declared() -> None:
    declared = space_of("lr", "depth")
    trial = trial_of(declared, {"lr": 0.1, "depth": 3})
    there = near(Space({}), trial, Random(0))
    assert set(there) == {"lr", "depth"}
    assert there != trial.params
