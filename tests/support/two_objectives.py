"""Made-up trials of two objectives, for tests of what judges several at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.tracking.objectives import OTHERS

STEPS = 12


def points(
    x: float, spread: float = 0.0, steps: int = STEPS, *, seed: int = 0
) -> dict[int, tuple[float, float]]:
    """Two losses that fall towards (x - 0.2)² + spread and (x - 0.8)² + spread: with spread 0 all x
    in between are on the front."""
    rng = np.random.default_rng([seed, int(x * 1e6), int(spread * 1e6)])
    noise = 0.003 * rng.standard_normal((STEPS, 2))
    ends = [(x - 0.2) ** 2 + spread + 0.1, (x - 0.8) ** 2 + spread + 0.1]
    return {
        s: tuple(end + math.exp(-s / 3) + noise[s, k] for k, end in enumerate(ends))
        for s in range(steps)
    }  # type: ignore[misc]


def make_trial(
    number: int,
    x: float,
    curve: Mapping[int, Sequence[float]],
    state: TrialState = TrialState.RUNNING,
    *,
    spread: float = 0.0,
) -> FrozenTrial:
    """A trial with two parameters; a finished one ends with its last point."""
    trial = create_trial(
        state=state,
        values=list(curve[max(curve)]) if state == TrialState.COMPLETE else None,
        params={"x": x, "spread": spread},
        distributions={"x": FloatDistribution(0.0, 1.0), "spread": FloatDistribution(0.0, 1.0)},
        intermediate_values={step: values[0] for step, values in curve.items()},
    )
    trial.system_attrs = {OTHERS: {step: tuple(values[1:]) for step, values in curve.items()}}
    trial.number = trial._trial_id = number
    return trial


def make_trials(finished: int = 16, running: int = 0, *, seed: int = 0) -> list[FrozenTrial]:
    """Finished trials at random places, and after them running ones that have come half way."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(finished + running):
        x, spread = float(rng.random()), float(0.5 * rng.random())
        is_over = number < finished
        curve = points(x, spread, STEPS if is_over else STEPS // 2, seed=seed)
        state = TrialState.COMPLETE if is_over else TrialState.RUNNING
        out.append(make_trial(number, x, curve, state, spread=spread))
    return out


def swapped(trial: FrozenTrial) -> FrozenTrial:
    """The same trial of a study whose two objectives stand in the other order."""
    first = trial.intermediate_values
    second = {step: values[0] for step, values in trial.system_attrs[OTHERS].items()}
    made = create_trial(
        state=trial.state,
        values=None if trial.values is None else trial.values[::-1],
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=second,
    )
    made.system_attrs = {OTHERS: {step: (value,) for step, value in first.items()}}
    made.number = made._trial_id = trial.number
    return made


def study_of(
    trials: Sequence[FrozenTrial], directions: Sequence[str] = ("minimize", "minimize")
) -> optuna.Study:
    """A study in Optuna's memory."""
    study = optuna.create_study(directions=directions)
    study.add_trials(list(trials))
    return study
