"""Which trial is recommended, and which one is called lucky beside it."""

from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.recommend import recommend


def trial(number: int, x: float, value: float) -> FrozenTrial:
    made = create_trial(
        state=TrialState.COMPLETE, values=[value], params={"x": x}, distributions={"x": FloatDistribution(0, 1)}
    )
    made.number = number
    return made


def bowl(noise: float) -> list[FrozenTrial]:
    rng = np.random.default_rng(0)
    return [trial(i, float(x), (x - 0.3) ** 2 + noise * rng.normal()) for i, x in enumerate(np.linspace(0, 1, 40))]


def test_a_lucky_draw_is_not_recommended_and_named() -> None:
    trials = [*bowl(0.01), trial(40, 0.9, -0.05)]
    told = recommend(trials, "minimize")
    assert told is not None
    assert abs(trials[told.number].params["x"] - 0.3) < 0.15
    assert told.luckiest == 40


def test_of_equal_values_none_is_luckier() -> None:
    """Errors of small test sets tie often; the first of them would look like a better one."""
    trials = [trial(i, x, round((x - 0.3) ** 2, 1)) for i, x in enumerate(np.linspace(0, 1, 40).tolist())]
    told = recommend(trials, "minimize")
    assert told is not None
    assert trials[told.number].value == 0.0
    assert told.luckiest == told.number
