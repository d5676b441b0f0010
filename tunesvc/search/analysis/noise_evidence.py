"""Evidence that a study's results are noisy: repeats that differ, or a model that needs noise.

Without repeats, noise looks like a function that is rough. So the values are explained twice: by
functions as rough as a Brownian motion (a Matérn 1/2 kernel) or smooth (5/2), and by the same
functions with noise (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
chapter 5). Results count as noisy if noise makes them far more probable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesvc.search.samplers.gp.model.fitted import PosteriorSummary
from tunesvc.search.samplers.gp.model.gp_model import coordinates_of, matern
from tunesvc.search.samplers.gp.model.repeats import ALIKE
from tunesvc.search.samplers.gp.model.warping import Warping

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


def is_noisy(summary: PosteriorSummary, shared_blocks: int | None) -> bool:
    """Return True if the data show noise, or if `shared_blocks` declare it and none contradict."""
    agree = summary.seen.repeats.agree
    if agree is not None:
        return not agree
    if shared_blocks is not None:
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
    squares = _squares(points, is_choice)
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


def _squares(points: np.ndarray, is_choice: np.ndarray) -> np.ndarray:
    """Return the squared distances of all points in each parameter, as the model takes them.

    Shape (n, n, parameters).
    """
    squares: np.ndarray = (points[:, None, :] != points).astype(float)
    numbers = points[:, ~is_choice]
    places = np.stack(coordinates_of(numbers, Warping.identity(numbers.shape[1])))
    squares[:, :, ~is_choice] = ((places[:, :, None, :] - places[:, None]) ** 2).sum(axis=0)
    return squares


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
