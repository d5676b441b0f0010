"""Evidence that a study's results are noisy: repeats that differ, or a model that needs noise.

Without repeats, noise looks like a function that is rough. So the values are explained twice: by
functions as rough as a Brownian motion (a Matérn 1/2 kernel) or smooth (5/2), and by the same
functions with noise (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
chapter 5). Results count as noisy if noise makes them far more probable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesvc.search.samplers.gp.fitted import PosteriorSummary
from tunesvc.search.samplers.gp.gp_model import matern

ALIKE = 3e-3
"""Values with variance 1 that are closer than this differ by rounding only."""
EVIDENCE_MIN = 4.0
"""Smallest logarithm of the likelihood ratio."""
NOISE_MIN = 0.08
"""Smallest share of noise in the variance of the values; less is left to the best observed value.
Ripples that are finer than the distances of the trials look like as much."""
PLATEAU = 0.1
"""A value that so many of the trials share is a penalty or a plateau, and holds no noise."""
_COMPARED_MIN, _COMPARED_MAX = 10, 100
_STRETCHES = 2.0 ** np.arange(-5, 4)
"""Factors on the distances, so that length scales are those of the best explanation."""
_NOISE = 10.0 ** np.arange(-4.0, 1.1, 0.5)
"""Variances of noise that are tried, where that of the function is 1."""
_JITTER = 1e-6
_LENGTH, _LENGTH_OF_CHOICES = 0.5, 1.2
"""Length scales of a function of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Measurements of configurations that were measured several times."""

    freedom: int
    """Number of measurements beyond the first of each configuration."""
    variance: float
    """Pooled variance within configurations; 0 without repeats."""
    largest: float
    """Largest difference of two measurements of one configuration."""

    @staticmethod
    def of(points: np.ndarray, values: np.ndarray) -> Repeats:
        """Group values, shape (n,), by equal points, shape (n, parameters)."""
        groups: dict[bytes, list[float]] = defaultdict(list)
        for point, value in zip(points, values, strict=True):
            groups[point.tobytes()].append(float(value))
        several = [np.array(group) for group in groups.values() if len(group) > 1]
        freedom = sum(len(group) - 1 for group in several)
        squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
        largest = max((float(np.ptp(group)) for group in several), default=0.0)
        return Repeats(freedom, squares / freedom if freedom else 0.0, largest)

    @property
    def agree(self) -> bool | None:
        """True if no two measurements of a configuration differ; None without repeats."""
        return self.largest <= ALIKE if self.freedom else None


def is_noisy(summary: PosteriorSummary, shared_seeds: int | None) -> bool:
    """Return True if the data show noise, or if `shared_seeds` declare it and none contradict."""
    seen = summary.seen
    agree = Repeats.of(seen.points, seen.values).agree
    if agree is not None:
        return not agree
    if shared_seeds is not None:
        return True
    known = summary.posterior.known
    return known.noise >= NOISE_MIN and _evidence(summary) >= EVIDENCE_MIN


def _evidence(summary: PosteriorSummary) -> float:
    """Return the logarithm of how much more probable noise makes the values off a plateau."""
    seen = summary.seen.thinned(_COMPARED_MAX)
    is_off = _is_off_plateau(seen.values)
    points, values = seen.points[is_off], seen.values[is_off]
    if len(values) < _COMPARED_MIN:
        return 0.0
    is_choice = summary.domain.is_choice
    apart = points[:, None, :] - points
    squares = np.where(is_choice, apart != 0.0, apart**2)
    unknown = 1 / np.where(is_choice, _LENGTH_OF_CHOICES, _LENGTH) ** 2
    without, with_noise = [], []
    for weights in (summary.posterior.known.weights, unknown):
        distances = np.sqrt(squares @ weights)
        for stretch in _STRETCHES:
            for covariance in (_rough(distances * stretch), _smooth(distances * stretch)):
                first, *others = _log_likelihoods(covariance, values, [0.0, *_NOISE])
                without.append(first)
                with_noise += others
    return max(with_noise) - max(without)


def _is_off_plateau(values: np.ndarray) -> np.ndarray:
    """Return False for trials with the most common value, if many share it."""
    is_alike = np.abs(values[:, None] - values) <= ALIKE
    shares = is_alike.mean(axis=1)
    off: np.ndarray = ~is_alike[shares.argmax()] | (shares.max() < PLATEAU)
    return off


def _log_likelihoods(
    covariance: np.ndarray,
    values: np.ndarray,
    noise: Sequence[float],
) -> list[float]:
    """Return the log likelihood with each variance of noise, at the most probable scale."""
    variances, axes = np.linalg.eigh(covariance)
    squares = (axes.T @ values) ** 2
    out = []
    for one in noise:
        total = np.maximum(variances, 0.0) + _JITTER + one
        scale = float((squares / total).mean())
        out.append(-0.5 * float(len(values) * np.log(scale) + np.log(total).sum()))
    return out


def _rough(distances: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.exp(-distances)
    return out


def _smooth(distances: np.ndarray) -> np.ndarray:
    values, _ = matern(distances**2)
    return values
