"""How much of a study's results is noise: by configurations that were measured more than once, else by the model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tunesvc.search.gp.domain import Domain
from tunesvc.search.gp.model import Posterior, fit
from tunesvc.search.gp.observations import observe
from tunesvc.search.recommend import is_candidate
from tunesvc.spec.model import Goal

REPEATS_MIN = 8
"""So many measurements beyond the first of their configuration tell the noise without a model."""
_FITTED_MAX = 200


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations in the objective's units, near the best."""

    deviation: float
    """Between results of the same configuration."""
    effect: float
    """From a middling configuration to the best one, by what is believed about both."""
    repeats: int
    """Measurements that it rests on; 0: it is learned by a Gaussian process, which sees no configuration twice."""

    @property
    def ratio(self) -> float:
        """Noise in units of the effect."""
        return self.deviation / self.effect if self.effect > 0 else math.inf


def noise_of(trials: Sequence[FrozenTrial], goal: Goal) -> Noise | None:
    """The noise of a study of one objective; None when its trials have no parameters that vary.

    The model alone cannot tell noise from a function that jumps between neighbours; it counts both.
    """
    candidates = [trial for trial in trials if is_candidate(trial) and math.isfinite(trial.values[0])]
    kinds = {name: kind for trial in candidates for name, kind in trial.distributions.items() if not kind.single()}
    if not kinds:
        return None
    domain = Domain(kinds)
    direction = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE
    seen = observe(candidates, domain, [direction], (), np.ones(1))
    if seen is None:
        return None
    seen = seen.thinned(_FITTED_MAX)
    known = fit(seen.points, seen.values, seen.variances, domain.choices)
    mean, _ = Posterior(known, domain.choices, seen.points, seen.values, seen.variances).predict(seen.points)
    best, middling = float(mean.min()), float(np.median(mean))
    repeats, pooled = _replicates(seen.points, seen.values)
    deviation = math.sqrt(pooled if repeats >= REPEATS_MIN else known.noise + known.own)
    at_best, at_middling = seen.in_units(best, deviation), seen.in_units(middling, 0.0)
    if at_best is None or at_middling is None:
        raise AssertionError("there is one objective")
    return Noise(at_best[1], abs(at_middling[0] - at_best[0]), repeats if repeats >= REPEATS_MIN else 0)


def _replicates(points: np.ndarray, values: np.ndarray) -> tuple[int, float]:
    """Degrees of freedom, and the variance within configurations, pooled."""
    groups: dict[bytes, list[float]] = defaultdict(list)
    for point, value in zip(points, values, strict=True):
        groups[point.tobytes()].append(float(value))
    several = [np.array(group) for group in groups.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return freedom, squares / freedom if freedom else 0.0
