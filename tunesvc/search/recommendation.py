"""Which trial to recommend: the best by what all trials together say, not by the luckiest draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.gp.domain import Domain
from tunesvc.search.gp.model import Posterior, fit
from tunesvc.search.gp.observations import OBSERVED_MAX, is_feasible, observe

TRIALS_MIN = 10
"""With fewer finished trials the best observed value is all there is to go by."""
_FITTED_MAX = 200


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A finished trial, and what its configuration is worth."""

    number: int
    value: float
    """The posterior mean, in the objective's units; the observed value where no model was asked."""
    deviation: float | None
    """The posterior deviation; None where no model was asked."""


def recommend(trials: Sequence[FrozenTrial], direction: StudyDirection) -> Recommendation | None:
    """The best finished and feasible trial of one objective, by the posterior mean of a Gaussian process.

    None when no trial has finished within its constraints.
    """
    finished = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and is_feasible(trial) and np.isfinite(trial.values[0])
    ]
    if not finished:
        return None
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    luckiest = min(finished, key=lambda trial: (sign * trial.values[0], trial.number))
    kinds = {name: kind for trial in finished for name, kind in trial.distributions.items() if not kind.single()}
    if len(finished) < TRIALS_MIN or not kinds:
        return Recommendation(luckiest.number, luckiest.values[0], None)
    domain = Domain(kinds)
    seen = observe(finished, domain, [direction], None, np.ones(1))
    if seen is None:
        raise AssertionError("there are finished trials")
    learned, seen = seen.thinned(_FITTED_MAX), seen.thinned(OBSERVED_MAX)
    known = fit(learned.points, learned.values, learned.variances, domain.choices)
    mean, variance = Posterior(known, domain.choices, seen.points, seen.values, seen.variances).predict(seen.points)
    best = int(np.argmin(mean))
    # Of several measurements of the same point, the first stands for it.
    same = (seen.points == seen.points[best]).all(axis=1)
    units = seen.in_units(float(mean[best]), float(np.sqrt(variance[best])))
    if units is None:
        raise AssertionError("there is one objective")
    return Recommendation(int(seen.numbers[same].min()), *units)
