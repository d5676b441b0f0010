"""A small Gaussian-process regression with a Student-t predictive. Kernels come from a fixed grid.

Rasmussen and Williams 2006: equations 2.25 and 2.26 (prediction), 5.12 (leave-one-out).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

PRIOR_DOF = 4.0
"""Number of residuals that the prior variance counts as."""
DOF = 5.0
"""Degrees of freedom of the predictive Student t: unusual curves are not rare."""
CHOOSE_MAX = 64
"""Most rows that a kernel is selected by; prediction uses all."""

_FITTED = 6.0
"""Parameters that the fit used up: residuals are too small by 1 + this / outputs."""
_OUTLIER = 8.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """linear · <x, x'> + smooth · exp(-|x - x'|² / (2 length²)) + noise,
    in units of the outputs' variance."""

    linear: float
    smooth: float
    length: float
    noise: float


KERNELS = tuple(
    Kernel(*choice)
    for choice in itertools.product(
        (0.2, 2.0),
        (0.1, 0.6, 2.5),
        (0.5, 1.2),
        (0.01, 0.05, 0.2, 0.7),
    )
)


class Regression:
    """Regression of outputs y on inputs x, with columns standardised here.

    The deviation is corrected by leave-one-out errors of observed outputs, of which there must be
    at least one.

    Args:
        x: shape (n, d).
        y: shape (n,).
        variance: of each output, beyond the common noise; 0 for observed ones; shape (n,).
        prior_deviation: deviation of outputs expected a priori.
        kernel: as selected before; None selects by the marginal likelihood.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        variance: np.ndarray,
        prior_deviation: float,
        kernel: Kernel | None = None,
    ) -> None:
        self._centre = np.median(x, axis=0)
        spread = x.std(axis=0)
        self._spread = np.where(spread > 1e-9, spread, 1.0) / _relevance(x, y) * np.sqrt(x.shape[1])
        self._x = self._standardise(x)
        seen = variance == 0
        self._mean = float(np.median(y[seen]))
        residual = (y - self._mean).clip(-_OUTLIER, _OUTLIER)
        prior2, n = PRIOR_DOF * prior_deviation**2, int(seen.sum())
        typical2 = (prior2 + float((residual[seen] ** 2).sum())) / (PRIOR_DOF + n)
        noise = variance / typical2
        self.kernel = kernel or _choose(self._x, residual, noise, prior2)
        noise_terms = np.diag(self.kernel.noise + noise)
        covariance = self._covariance(self.kernel, self._x, self._x) + noise_terms
        self._factor = np.linalg.cholesky(covariance)
        inverse = cho_solve((self._factor, True), np.eye(len(y)))
        self._alpha = inverse @ residual
        errors2 = (self._alpha**2 / np.diag(inverse))[seen]
        total2 = prior2 + float(np.minimum(errors2, 16 * typical2).sum())
        self._scale2 = total2 / (PRIOR_DOF + n) * (1 + _FITTED / n)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation (scale of a Student t with `DOF`), noise included.

        Shapes (m,).
        """
        x = self._standardise(x)
        across = self._covariance(self.kernel, x, self._x)
        explained = solve_triangular(self._factor, across.T, lower=True)
        own = self.kernel.linear * (1 + (x**2).sum(axis=1)) + self.kernel.smooth
        left = np.maximum(own - (explained**2).sum(axis=0), 0.0)
        deviation = np.sqrt(self._scale2 * (left + self.kernel.noise))
        return np.asarray(self._mean + across @ self._alpha), deviation

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(((x - self._centre) / self._spread).clip(-3, 3))

    def _covariance(
        self,
        kernel: Kernel,
        a: np.ndarray,
        b: np.ndarray,
    ) -> np.ndarray:
        smooth = kernel.smooth * _smooth(a, b, kernel.length)
        return np.asarray(kernel.linear * (1 + a @ b.T) + smooth)


def _relevance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weight columns by their rank correlation with the outputs beyond chance; mean square 1.

    A substitute for one length-scale per column (automatic relevance determination), for which
    there are too few outputs.
    """
    ranks = y.argsort().argsort() - (len(y) - 1) / 2
    centred = x - x.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0) * (ranks**2).sum())
    squared = (
        np.where(
            norm > 1e-9,
            (centred.T @ ranks) / np.maximum(norm, 1e-9),
            0.0,
        )
        ** 2
    )
    weights = 0.2 + np.sqrt(np.maximum(squared - 1 / len(y), 0.0))
    return np.asarray(weights / np.sqrt((weights**2).mean()))


def _choose(
    x: np.ndarray,
    y: np.ndarray,
    noise: np.ndarray,
    prior2: float,
) -> Kernel:
    """Return the most likely kernel of the outputs, with their scale integrated out."""
    surest = np.argsort(noise, kind="stable")[:CHOOSE_MAX]
    x, y, noise = x[surest], y[surest], noise[surest]
    of_length = {length: _smooth(x, x, length) for length in {kernel.length for kernel in KERNELS}}
    linear = np.array([kernel.linear for kernel in KERNELS])
    smooth = np.array([kernel.smooth for kernel in KERNELS])
    own = np.array([kernel.noise for kernel in KERNELS])
    stack = smooth[:, None, None] * np.stack([of_length[k.length] for k in KERNELS])
    stack += linear[:, None, None] * (1 + x @ x.T)
    diagonal = np.arange(len(y))
    stack[:, diagonal, diagonal] += own[:, None] + noise
    factors = np.linalg.cholesky(stack)
    white = np.linalg.solve(
        factors,
        np.broadcast_to(y[:, None], (len(KERNELS), len(y), 1)),
    )[..., 0]
    half_log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    misfit = np.log(prior2 + (white**2).sum(axis=1))
    return KERNELS[int(np.argmax(-half_log_det - 0.5 * (PRIOR_DOF + len(y)) * misfit))]


def _smooth(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    distance2 = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(np.maximum(distance2, 0.0) / (-2 * length**2)))
