"""Which trial a study recommends.

Of several hundred noisy results the best one is mostly lucky: its true value is worse than it looks. The trial to
recommend is the one that is best by what is believed about all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from tunesvc.spec.model import Goal


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The trial to take."""

    number: int
    mean: float
    """What its value is believed to be."""
    deviation: float | None
    """Standard deviation of that belief; None when nothing is known of it."""
    luckiest: int
    """The trial with the best observed value."""


def recommend(trials: Sequence[FrozenTrial], goal: Goal) -> Recommendation | None:
    """The trial to take of a study of one objective, or None when none is complete and feasible.

    The one seam for whoever knows better: it is handed every trial, and answers for now with the best observed.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    if not candidates:
        return None
    sign = -1.0 if goal == "maximize" else 1.0
    luckiest = min(candidates, key=lambda trial: (sign * trial.values[0], trial.number))
    return Recommendation(luckiest.number, luckiest.values[0], None, luckiest.number)


def is_candidate(trial: FrozenTrial) -> bool:
    """Whether a trial may be recommended: complete, a number, and within its constraints."""
    if trial.state != TrialState.COMPLETE or any(math.isnan(value) for value in trial.values):
        return False
    return all(excess <= 0 for excess in trial.constraints.values())
