"""Which trial a study recommends.

Of several hundred noisy results the best one is mostly lucky: its true value is worse than it looks. The trial to
recommend is the one that is best by what is believed about all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.gp.domain import Domain
from tunesvc.search.gp.model import Posterior, fit
from tunesvc.search.gp.observations import OBSERVED_MAX, observe
from tunesvc.spec.model import Goal

TRIALS_MIN = 10
"""With fewer complete trials the best observed value is all there is to go by."""
_FITTED_MAX = 200


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The trial to take."""

    number: int
    mean: float
    """What its value is believed to be."""
    deviation: float | None
    """Standard deviation of that belief; None when nothing is known of it."""
    luckiest: int
    """The trial with the best observed value; the recommended one if it has that value too."""


def recommend(trials: Sequence[FrozenTrial], goal: Goal) -> Recommendation | None:
    """The trial to take of a study of one objective, or None when none is complete and feasible.

    By the posterior mean of a Gaussian process over all complete trials; of less than ten the best observed.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    if not candidates:
        return None
    sign = -1.0 if goal == "maximize" else 1.0
    luckiest = min(candidates, key=lambda trial: (sign * trial.values[0], trial.number))
    kinds = {name: kind for trial in candidates for name, kind in trial.distributions.items() if not kind.single()}
    if len(candidates) < TRIALS_MIN or not kinds:
        return Recommendation(luckiest.number, luckiest.values[0], None, luckiest.number)
    number, mean, deviation = _best_believed(candidates, Domain(kinds), goal)
    is_as_good = any(trial.number == number and trial.values == luckiest.values for trial in candidates)
    return Recommendation(number, mean, deviation, number if is_as_good else luckiest.number)


def _best_believed(candidates: Sequence[FrozenTrial], domain: Domain, goal: Goal) -> tuple[int, float, float]:
    """Number, posterior mean and deviation."""
    direction = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
    seen = observe(candidates, domain, [direction], (), np.ones(1))
    if seen is None:
        raise AssertionError("all candidates are complete")
    learned, seen = seen.thinned(_FITTED_MAX), seen.thinned(OBSERVED_MAX)
    known = fit(learned.points, learned.values, learned.variances, domain.choices)
    mean, variance = Posterior(known, domain.choices, seen.points, seen.values, seen.variances).predict(seen.points)
    best = int(np.argmin(mean))
    same = (seen.points == seen.points[best]).all(axis=1)  # the first measurement of a configuration stands for it
    units = seen.in_units(float(mean[best]), float(np.sqrt(variance[best])))
    if units is None:
        raise AssertionError("there is one objective")
    return int(seen.numbers[same].min()), *units


def is_candidate(trial: FrozenTrial) -> bool:
    """Whether a trial may be recommended: complete, a number, and within its constraints."""
    if trial.state != TrialState.COMPLETE or any(math.isnan(value) for value in trial.values):
        return False
    return all(excess <= 0 for excess in trial.constraints.values())
