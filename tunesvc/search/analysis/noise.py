"""How much of a study's results is noise: by configurations that were measured more than once, else by the model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from tunesvc.search.analysis.recommend import is_candidate
from tunesvc.search.samplers.gp.fitted import fit_posterior
from tunesvc.spec.model import Goal

REPEATS_MIN = 8
"""So many measurements beyond the first of their configuration tell the noise without a model."""


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


def noise_of(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_seeds: int | None = None,
) -> Noise | None:
    """The noise of a study of one objective; None when its trials have no parameters that vary.

    The model alone cannot tell noise from a function that jumps between neighbours; it counts both. What each of
    `shared_seeds` training seeds does to all trials alike is no noise.
    """
    candidates = [trial for trial in trials if is_candidate(trial) and math.isfinite(trial.values[0])]
    summary = fit_posterior(candidates, goal, shared_seeds)
    if summary is None:
        return None
    seen, posterior = summary.seen, summary.posterior
    mean = posterior.mean(seen.points)
    repeats, pooled = _replicates(
        seen.points,
        seen.values - posterior.shifts(seen.seeds),
    )
    deviation = math.sqrt(pooled if repeats >= REPEATS_MIN else posterior.known.noise + posterior.known.own)
    (best, middling), (at_best, _) = summary.spread(
        np.array([mean.min(), np.median(mean)]),
        np.full(2, deviation),
    )
    return Noise(
        float(at_best),
        float(abs(middling - best)),
        repeats if repeats >= REPEATS_MIN else 0,
    )


def _replicates(points: np.ndarray, values: np.ndarray) -> tuple[int, float]:
    """Degrees of freedom, and the variance within configurations, pooled."""
    groups: dict[bytes, list[float]] = defaultdict(list)
    for point, value in zip(points, values, strict=True):
        groups[point.tobytes()].append(float(value))
    several = [np.array(group) for group in groups.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
    return freedom, squares / freedom if freedom else 0.0
