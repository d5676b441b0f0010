"""Noise of a study's results, from repeated configurations or from the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tunesvc.search.samplers.gp.model.fitted import PosteriorSummary
from tunesvc.search.samplers.gp.model.repeats import Repeats

REPEATS_MIN = 8
"""Repeated measurements from which the noise is estimated without a model."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise and effect size as standard deviations in the objective's units, near the best."""

    deviation: float
    """Deviation between results of the same configuration."""
    effect: float
    """Difference between a median configuration and the best one, by the posterior."""
    repeats: int
    """Number of repeated measurements used; 0: a Gaussian process estimated the noise."""

    @property
    def ratio(self) -> float:
        """Noise in units of the effect."""
        return self.deviation / self.effect if self.effect > 0 else math.inf


def measure(summary: PosteriorSummary) -> Noise:
    """Return noise and effect size in a fitted model of one objective.

    The model alone cannot separate noise from a function that jumps between neighbours. It counts
    both. Effects of shared training seeds on all trials alike do not count.
    """
    seen, posterior = summary.seen, summary.posterior
    mean = posterior.mean(seen.points)
    repeats = Repeats.of(seen.points, seen.values - posterior.shifts(seen.seeds))
    is_measured = repeats.freedom >= REPEATS_MIN
    modelled = posterior.known.noise + posterior.known.own
    deviation = math.sqrt(repeats.variance if is_measured else modelled)
    (best, middling), (at_best, _) = summary.spread(
        np.array([mean.min(), np.median(mean)]),
        np.full(2, deviation),
    )
    return Noise(
        float(at_best),
        float(abs(middling - best)),
        repeats.freedom if is_measured else 0,
    )
