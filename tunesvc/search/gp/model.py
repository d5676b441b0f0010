"""Gaussian-process regression over points of a `Domain`.

The covariance is a Matérn 5/2 over a distance with one length scale per parameter, choices at distance 0 or 1, plus a
term of each distinct point's own: what a configuration does beyond what its neighbours tell. Together with learned
noise, this tells a lucky draw from a good configuration. Hyperparameters maximise the marginal likelihood under
log-normal priors (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

JITTER = 1e-6


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Of values whose variance is about one."""

    weights: np.ndarray
    """Inverse squared length scales, one per parameter."""
    signal: float
    """Variance of what neighbours share."""
    own: float
    """Variance of what each point has for itself."""
    noise: float
    """Variance of an observation of the same point."""

    @property
    def prior(self) -> float:
        """Variance of the function where nothing was observed."""
        return self.signal + self.own


_LENGTH = (np.log(0.5), 1.0)
"""Mean and deviation of a length scale's logarithm; of the unit cube's side."""
_SIGNAL = (0.0, 1.0)
_OWN = (np.log(0.02), 1.0)
_NOISE = (np.log(0.03), 1.5)


def fit(points: np.ndarray, values: np.ndarray, variances: np.ndarray, choices: np.ndarray) -> Hyperparameters:
    """The most probable hyperparameters.

    Always from the same start, so that they depend on the data only.

    Args:
        points: shape (n, parameters).
        values: shape (n,), of mean 0 and variance 1 or so.
        variances: of observations, known beyond the noise to be learned; shape (n,).
        choices: how many choices each parameter has, 0 for a number; shape (parameters,).
    """
    is_choice = choices > 0
    squares = _squares(points, points, is_choice)
    same = (squares.sum(axis=0) == 0.0).astype(float)
    start = np.concatenate([np.full(len(is_choice), -2 * _LENGTH[0]), [_SIGNAL[0], np.log(0.02), np.log(0.05)]])
    bounds = [(-8.0, 6.0)] * len(is_choice) + [(-3.0, 3.0), (-9.0, 0.0), (-9.0, 1.0)]
    found = optimize.minimize(
        _negative_log_posterior,
        start,
        (squares.reshape(len(is_choice), -1), same, values, variances),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 25},
    )
    weights, signal, own, noise = _unpack(found.x)
    return Hyperparameters(weights, signal, own, noise)


class Posterior:
    """What observations say about the function."""

    def __init__(
        self,
        known: Hyperparameters,
        choices: np.ndarray,
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
    ) -> None:
        """Shapes as in `fit`."""
        self.known = known
        self._choices = choices
        self._features = self._embed(points)
        covariance = self._covariance(self._features)
        covariance[np.diag_indices(len(points))] += known.noise + variances + JITTER
        self._factor = _factor(covariance)
        self._weights = linalg.cho_solve((self._factor, True), values, check_finite=False)

    def mean(self, points: np.ndarray) -> np.ndarray:
        """Shape (points,)."""
        out: np.ndarray = self._covariance(self._embed(points)) @ self._weights
        return out

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the function itself, without noise."""
        cross = self._covariance(self._embed(points))
        solved = linalg.solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self.known.prior - np.einsum("ij,ij->j", solved, solved)
        mean: np.ndarray = cross @ self._weights
        return mean, np.maximum(variance, 1e-12)

    def distances(self, point: np.ndarray, points: np.ndarray) -> np.ndarray:
        """From a point to others, in length scales; shape (points,)."""
        out: np.ndarray = np.linalg.norm(self._embed(points) - self._embed(point[None]), axis=1)
        return out

    def _covariance(self, features: np.ndarray) -> np.ndarray:
        squares = (features**2).sum(axis=1)[:, None] + (self._features**2).sum(axis=1) - 2 * features @ self._features.T
        smooth, _ = _matern(squares)
        out: np.ndarray = self.known.signal * smooth + self.known.own * (squares < 1e-9)
        return out

    def _embed(self, points: np.ndarray) -> np.ndarray:
        """Coordinates in which the covariance's distance is Euclidean; a choice is one corner of a simplex."""
        scales, is_number = np.sqrt(self.known.weights), self._choices == 0
        parts = [points[:, is_number] * scales[is_number]]
        for j in np.flatnonzero(~is_number):
            corners = np.zeros((len(points), self._choices[j]))
            corners[np.arange(len(points)), points[:, j].astype(int)] = scales[j] / np.sqrt(2)
            parts.append(corners)
        return np.hstack(parts)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """The lower Cholesky factor. Points that all but coincide, as a sampler that has converged proposes them, may leave
    the covariance a little short of positive definite: then with more on its diagonal."""
    for jitter in (0.0, 1e-4, 1e-2):
        try:
            raised = covariance + jitter * np.eye(len(covariance)) if jitter else covariance
            return np.asarray(linalg.cholesky(raised, lower=True, check_finite=False))
        except linalg.LinAlgError:
            continue
    raised = covariance + np.diag(np.abs(covariance).sum(axis=1))  # diagonally dominant
    return np.asarray(linalg.cholesky(raised, lower=True, check_finite=False))


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matérn 5/2 of squared distances, and its derivative by them."""
    root = np.sqrt(5.0 * np.maximum(squares, 0.0))
    decay = np.exp(-root)
    return (1.0 + root + root**2 / 3.0) * decay, -(5.0 / 6.0) * (1.0 + root) * decay


def _squares(a: np.ndarray, b: np.ndarray, is_choice: np.ndarray) -> np.ndarray:
    """Squared distance in each parameter; shape (parameters, len(a), len(b))."""
    apart = (a[:, None, :] - b[None, :, :]).transpose(2, 0, 1)
    out: np.ndarray = np.where(is_choice[:, None, None], (apart != 0.0).astype(float), apart**2)
    return out


def _unpack(theta: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    weights, (signal, own, noise) = np.exp(theta[:-3]), np.exp(theta[-3:])
    return weights, float(signal), float(own), float(noise)


def _negative_log_posterior(
    theta: np.ndarray, squares: np.ndarray, same: np.ndarray, values: np.ndarray, variances: np.ndarray
) -> tuple[float, np.ndarray]:
    """And its gradient; `squares` has shape (parameters, n * n)."""
    n = len(values)
    weights, signal, own, noise = _unpack(theta)
    smooth, slope = _matern((weights @ squares).reshape(n, n))
    covariance = signal * smooth + own * same
    covariance[np.diag_indices(n)] += noise + variances + JITTER
    try:
        factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    solved = linalg.cho_solve((factor, True), values, check_finite=False)
    inverse, _ = linalg.lapack.dpotri(factor, lower=1)
    inverse += np.tril(inverse, -1).T  # LAPACK fills the lower triangle only
    misfit = inverse - np.outer(solved, solved)
    gradient = np.empty_like(theta)
    gradient[:-3] = 0.5 * weights * (squares @ (misfit * signal * slope).ravel())
    gradient[-3] = 0.5 * signal * np.vdot(misfit, smooth)
    gradient[-2] = 0.5 * own * np.vdot(misfit, same)
    gradient[-1] = 0.5 * noise * np.trace(misfit)
    value = 0.5 * values @ solved + np.log(np.diag(factor)).sum()
    for part, (mean, deviation), factor_of in (
        (slice(0, -3), _LENGTH, -0.5),  # a length scale's logarithm is -1/2 that of its weight
        (slice(-3, -2), _SIGNAL, 1.0),
        (slice(-2, -1), _OWN, 1.0),
        (slice(-1, None), _NOISE, 1.0),
    ):
        off = (factor_of * theta[part] - mean) / deviation
        value += 0.5 * float(off @ off)
        gradient[part] += factor_of * off / deviation
    return float(value), gradient
