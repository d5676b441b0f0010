"""Slices of the model's posterior along parameters."""

from __future__ import annotations

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.analysis.model_surface import learn

SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "n": IntDistribution(1, 4),
    "kind": CategoricalDistribution(["a", "b"]),
}


def trials(count: int) -> list[FrozenTrial]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        params = {
            "x": float(rng.random()),
            "n": int(rng.integers(1, 5)),
            "kind": "ab"[rng.integers(2)],
        }
        value = (params["x"] - 0.3) ** 2 + 0.1 * params["n"] + (params["kind"] == "b")
        trial = create_trial(
            state=TrialState.COMPLETE, value=value, params=params, distributions=SPACE
        )
        trial.number = number
        made.append(trial)
    return made


def test_the_model_finds_the_valley_and_is_surer_where_it_has_seen_more() -> None:
    surface = learn(trials(60), "minimize")
    assert surface is not None
    cut = surface.cut("x")
    assert abs(cut.places[int(np.argmin(cut.mean))] - 0.3) < 0.1
    assert (cut.deviation > 0).all()
    choices = surface.cut("kind")
    assert choices.places == ("a", "b")
    assert choices.mean[1] > choices.mean[0]
    assert surface.cut("n").places == (1, 2, 3, 4)


def test_a_plane_has_a_row_for_each_place_of_the_second() -> None:
    surface = learn(trials(40), "minimize")
    assert surface is not None
    plane = surface.plane("n", "kind")
    assert plane.mean.shape == (2, 4)
    assert plane.mean[0, 0] < plane.mean[1, 3]


def test_cuts_are_in_the_objectives_own_direction() -> None:
    surface = learn(trials(60), "maximize")
    assert surface is not None
    assert surface.cut("kind").mean[1] > surface.cut("kind").mean[0]


def test_nothing_is_believed_of_nothing() -> None:
    assert learn([], "minimize") is None
