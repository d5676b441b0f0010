"""Made-up learning curves and studies of them, for tests of what judges curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

STEPS = 27


def curve(x: float, steps: int = STEPS, *, seed: int = 0) -> dict[int, float]:
    """A loss that falls towards (x - 0.3)² + 0.1, the slower the larger x is, with a little
    noise."""
    rng = np.random.default_rng([seed, int(x * 1e6)])
    noise = 0.005 * rng.standard_normal(STEPS)
    floor = (x - 0.3) ** 2 + 0.1
    return {s: floor + math.exp(-s / (2 + 6 * x)) + float(noise[s]) for s in range(steps)}


def make_trial(
    number: int,
    x: float,
    points: Mapping[int, float],
    state: TrialState = TrialState.RUNNING,
    value: float | None = None,
) -> FrozenTrial:
    """A trial with one parameter; a finished one ends with `value`, or with its last point."""
    if state in (TrialState.COMPLETE, TrialState.PRUNED) and value is None:
        value = points[max(points)]
    trial = create_trial(
        state=state,
        value=value,
        params={"x": x},
        distributions={"x": FloatDistribution(0.0, 1.0)},
        intermediate_values=dict(points),
    )
    trial.number = trial._trial_id = number
    return trial


def make_study(
    finished: int = 12, pruned: int = 8, running: int = 0, *, seed: int = 0
) -> Sequence[FrozenTrial]:
    """Trials at random places, numbered from 0: first the finished ones."""
    rng = np.random.default_rng(seed)
    xs = rng.random(finished + pruned + running)
    states = (
        [TrialState.COMPLETE] * finished
        + [TrialState.PRUNED] * pruned
        + [TrialState.RUNNING] * running
    )
    lengths = [STEPS] * finished + [int(n) for n in rng.integers(1, STEPS - 1, pruned + running)]
    return [
        make_trial(i, float(x), curve(float(x), n, seed=seed), state)
        for i, (x, n, state) in enumerate(zip(xs, lengths, states, strict=True))
    ]
