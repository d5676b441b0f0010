"""Gaussian-process regression over points of a `Domain`.

The covariance is a Matérn 5/2 over a distance with one length scale per parameter, choices at
distance 0 or 1, absent numbers beside the middle of their range, plus a term for each distinct
point: the effect of a configuration beyond its neighbours. With fitted noise, this separates a
lucky draw from a good configuration. Where observations share training seeds, the effect of a seed
on all points alike has its own term. Noise is then the effect of a seed on one point, which the
same point with the same seed has again, up to a remainder (a block design with interaction).
Hyperparameters maximise the marginal likelihood under log-normal priors (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from tunesvc.search.samplers.gp.domain import ABSENT

JITTER = 1e-6
_BESIDE = 0.5
"""Distance of an absent number from the middle of its range, at a right angle to it: so it is about
equally far from all its values (Hutter and Osborne 2013, "A kernel for hierarchical parameter
spaces")."""
_SAME = 1e-9
"""Points at most this far apart count as the same."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Parameters of the covariance, for values with a variance of about one."""

    weights: np.ndarray
    """Inverse squared length scales, one per parameter."""
    signal: float
    """Variance that neighbours share."""
    own: float
    """Variance of each point by itself."""
    noise: float
    """Variance of observations of one point with different seeds."""
    shift: float = 0.0
    """Variance of a seed's effect on all points alike; 0 if no two observations share a seed."""
    rest: float = 0.0
    """Variance of observations of the same point with the same seed; 0 if none share a seed."""
    log_posterior: float = 0.0
    """Log posterior of the fitted values, up to a constant."""

    @property
    def prior(self) -> float:
        """Variance of the function far from any observation."""
        return self.signal + self.own


_LENGTH, _LENGTH_OF_CHOICES = (np.log(0.5), 1.0, 1.0), (np.log(1.2), 1.0, 1.0)
"""Mode of a length scale's logarithm, and its deviations below and above. Choices are 1 apart,
numbers 0.4 of their range on average, so scales of choices are that much longer. Otherwise
configurations that differ in a few choices would be unrelated."""
_SIGNAL = (0.0, 1.0, 1.0)
_FLAT = np.array(
    [
        (np.log(0.02), 4.0, 1.0, -14.0, 0.0),
        (np.log(0.03), 4.0, 1.5, -14.0, 1.0),
        (np.log(0.03), 1.5, 1.5, -9.0, 1.0),
        (np.log(1e-4), 2.0, 2.0, -12.0, 1.0),
    ]
)
"""Priors and bounds of `own`, `noise`, `shift` and `rest`, the terms that do not fade with
distance. The first two may be almost 0, as for a smooth function; but few values can always be
explained as noise, so large ones are less likely."""
_FLAT_OF_STEPS = np.array(
    [
        (np.log(0.02), 1.0, 1.0, -9.0, 0.0),
        (np.log(0.03), 1.5, 1.5, -9.0, 1.0),
    ]
)
"""The same for a function with jumps, which must not be modelled as smooth."""
_FLAT_START = np.log([0.02, 0.05, 0.05, 1e-4])


def fit(
    points: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    choices: np.ndarray,
    seeds: np.ndarray | None = None,
    *,
    jumps: bool = False,
) -> Hyperparameters:
    """Return the most probable hyperparameters, from a fixed start, so that only data counts.

    Args:
        points: shape (n, parameters).
        values: shape (n,), of mean 0 and variance 1 or so.
        variances: of observations, beyond the noise to be fitted; shape (n,).
        choices: number of choices of each parameter, 0 for a number; shape (parameters,).
        seeds: equal where observations share a training seed; shape (n,). None: all differ.
        jumps: True if the function may have steps, like violations of a constraint; for
            observations that share no seeds.
    """
    is_choice = choices > 0
    squares = _squares(points, points, is_choice)
    flat = _flat(
        squares.sum(axis=0) == 0.0,
        np.arange(len(points)) if seeds is None else seeds,
    )
    of_flat = (_FLAT_OF_STEPS if jumps else _FLAT)[: len(flat)]
    lengths = np.where(is_choice[:, None], _LENGTH_OF_CHOICES, _LENGTH)
    priors = np.vstack([lengths, _SIGNAL, of_flat[:, :3]])
    start = np.concatenate([-2 * lengths[:, 0], [_SIGNAL[0]], _FLAT_START[: len(flat)]])
    bounds = [(-8.0, 6.0)] * len(is_choice) + [(-3.0, 3.0), *of_flat[:, 3:]]
    found = optimize.minimize(
        _negative_log_posterior,
        start,
        (squares.reshape(len(is_choice), -1), flat, values, variances, priors),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 25},
    )
    weights, signal, variances_found = _unpack(found.x, len(is_choice))
    own, noise, shift, rest = [*map(float, variances_found), 0.0, 0.0][:4]
    return Hyperparameters(
        weights,
        signal,
        own,
        noise,
        shift,
        rest,
        -float(found.fun),
    )


class Posterior:
    """Posterior of the function, given observations."""

    def __init__(
        self,
        known: Hyperparameters,
        choices: np.ndarray,
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
        seeds: np.ndarray | None = None,
    ) -> None:
        """Take arrays shaped as in `fit`."""
        self.known = known
        self._choices = choices
        self._seeds = np.arange(len(points)) if seeds is None else seeds
        self._features = self._embed(points)
        squares = self._squares(self._features)
        covariance = self._covariance(squares) + self._of_seeds(
            squares,
            self._seeds,
        )
        covariance[np.diag_indices(len(points))] += known.rest + variances + JITTER
        self._factor = _factor(covariance)
        self._weights = linalg.cho_solve(
            (self._factor, True),
            values,
            check_finite=False,
        )

    def mean(
        self,
        points: np.ndarray,
        seeds: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return means of the function, or with `seeds` of observations with those.

        Shape (points,).
        """
        squares = self._squares(self._embed(points))
        cross = self._covariance(squares)
        if seeds is not None:
            cross += self._of_seeds(squares, seeds)
        out: np.ndarray = cross @ self._weights
        return out

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the function itself, without noise."""
        cross = self._covariance(self._squares(self._embed(points)))
        solved = self._solve(cross)
        variance = self.known.prior - np.einsum("ij,ij->j", solved, solved)
        mean: np.ndarray = cross @ self._weights
        return mean, np.maximum(variance, 1e-12)

    def lookahead(
        self,
        points: np.ndarray,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean, and the deviation of its change by an observation with this seed."""
        known = self.known
        squares = self._squares(self._embed(points))
        cross = self._covariance(squares)
        solved = self._solve(cross)
        variance = np.maximum(
            known.prior - np.einsum("ij,ij->j", solved, solved),
            1e-12,
        )
        observed = known.noise + known.shift + known.rest
        if (self._seeds == seed).any():
            of_seed = self._solve(self._of_seeds(squares, np.full(len(points), seed)))
            shared = np.einsum("ij,ij->j", solved, of_seed)
            observed -= 2 * shared + np.einsum("ij,ij->j", of_seed, of_seed)
            change = (variance - shared) / np.sqrt(np.maximum(variance + observed, JITTER))
        else:
            change = variance / np.sqrt(variance + observed)
        mean: np.ndarray = cross @ self._weights
        return mean, np.maximum(change, 1e-12)

    def shifts(self, seeds: np.ndarray) -> np.ndarray:
        """Return the estimated effect of each seed on all points alike; shape (seeds,)."""
        out: np.ndarray = self.known.shift * (seeds[:, None] == self._seeds) @ self._weights
        return out

    def distances(self, point: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return distances from a point to others, in length scales; shape (points,)."""
        out: np.ndarray = np.linalg.norm(
            self._embed(points) - self._embed(point[None]),
            axis=1,
        )
        return out

    def _solve(self, cross: np.ndarray) -> np.ndarray:
        return np.asarray(
            linalg.solve_triangular(
                self._factor,
                cross.T,
                lower=True,
                check_finite=False,
            )
        )

    def _squares(self, features: np.ndarray) -> np.ndarray:
        own = (features**2).sum(axis=1)[:, None]
        observed = (self._features**2).sum(axis=1)
        out: np.ndarray = own + observed - 2 * features @ self._features.T
        return out

    def _covariance(self, squares: np.ndarray) -> np.ndarray:
        """Return covariances of the function, at squared distances from the observed points."""
        smooth, _ = _matern(squares)
        out: np.ndarray = self.known.signal * smooth + self.known.own * (squares < _SAME)
        return out

    def _of_seeds(self, squares: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return covariances that come from shared seeds."""
        alike = seeds[:, None] == self._seeds
        out: np.ndarray = alike * (self.known.shift + self.known.noise * (squares < _SAME))
        return out

    def _embed(self, points: np.ndarray) -> np.ndarray:
        """Return coordinates with Euclidean distances; a choice is one corner of a simplex."""
        scales, is_number = np.sqrt(self.known.weights), self._choices == 0
        along, beside = _coordinates(points[:, is_number])
        parts = [along * scales[is_number], beside * scales[is_number]]
        for j in np.flatnonzero(~is_number):
            # The last corner, index -1, stands for an absent choice.
            corners = np.zeros((len(points), self._choices[j] + 1))
            corners[np.arange(len(points)), points[:, j].astype(int)] = scales[j] / np.sqrt(2)
            parts.append(corners)
        return np.hstack(parts)


def _coordinates(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates of numbers along their ranges and beside them; both shaped alike."""
    is_absent = numbers == ABSENT
    return np.where(is_absent, 0.5, numbers), _BESIDE * is_absent


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Return the lower Cholesky factor.

    Points that nearly coincide, as from a sampler that has converged, may leave the covariance a
    little short of positive definite. The diagonal is raised then.
    """
    for jitter in (0.0, 1e-4, 1e-2):
        try:
            raised = covariance + jitter * np.eye(len(covariance)) if jitter else covariance
            return np.asarray(linalg.cholesky(raised, lower=True, check_finite=False))
        except linalg.LinAlgError:
            continue
    raised = covariance + np.diag(np.abs(covariance).sum(axis=1))  # diagonally dominant
    return np.asarray(linalg.cholesky(raised, lower=True, check_finite=False))


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Matérn 5/2 function of squared distances, and its derivative by them."""
    root = np.sqrt(5.0 * np.maximum(squares, 0.0))
    decay = np.exp(-root)
    return (1.0 + root + root**2 / 3.0) * decay, -(5.0 / 6.0) * (1.0 + root) * decay


def _squares(a: np.ndarray, b: np.ndarray, is_choice: np.ndarray) -> np.ndarray:
    """Return squared distances in each parameter; shape (parameters, len(a), len(b))."""
    along, beside = (
        (of_a[:, None, :] - of_b[None, :, :]).transpose(2, 0, 1)
        for of_a, of_b in zip(_coordinates(a), _coordinates(b), strict=True)
    )
    differs = (a[:, None, :] != b[None, :, :]).transpose(2, 0, 1)
    out: np.ndarray = np.where(is_choice[:, None, None], differs, along**2 + beside**2)
    return out


def _flat(same: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the masks of the terms that do not fade with distance; shape (terms, n, n).

    `own`, `noise`, and if any seed is shared `shift` and `rest`.
    """
    alike = seeds[:, None] == seeds
    terms = [same, same & alike]
    if alike.sum() > len(seeds):
        terms += [alike, np.eye(len(seeds))]
    return np.array(terms, dtype=float)


def _unpack(
    theta: np.ndarray,
    parameters: int,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Return weights, the signal's variance, and those of the flat terms."""
    known = np.exp(theta)
    return known[:parameters], float(known[parameters]), known[parameters + 1 :]


def _negative_log_posterior(
    theta: np.ndarray,
    squares: np.ndarray,
    flat: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    priors: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Return the negative log posterior and its gradient.

    Args:
        squares: shape (parameters, n * n).
        flat: shape (terms, n, n).
        priors: of length scales, signal and terms; shape (parameters + 1 + terms, 3).
    """
    n, parameters = len(values), len(squares)
    weights, signal, of_flat = _unpack(theta, parameters)
    smooth, slope = _matern((weights @ squares).reshape(n, n))
    covariance = signal * smooth + np.tensordot(of_flat, flat, axes=1)
    covariance[np.diag_indices(n)] += variances + JITTER
    try:
        factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    solved = linalg.cho_solve((factor, True), values, check_finite=False)
    inverse, _ = linalg.lapack.dpotri(factor, lower=1)
    inverse += np.tril(inverse, -1).T  # LAPACK fills only the lower triangle
    misfit = inverse - np.outer(solved, solved)
    gradient = np.empty_like(theta)
    gradient[:parameters] = 0.5 * weights * (squares @ (misfit * signal * slope).ravel())
    gradient[parameters] = 0.5 * signal * np.vdot(misfit, smooth)
    gradient[parameters + 1 :] = 0.5 * of_flat * np.tensordot(flat, misfit, axes=2)
    value = 0.5 * values @ solved + np.log(np.diag(factor)).sum()
    # A length scale's logarithm is -1/2 times that of its weight.
    factors = np.repeat([-0.5, 1.0], [parameters, 1 + len(flat)])
    modes, below, above = priors.T
    off = factors * theta - modes
    deviations = np.where(off < 0.0, below, above)
    prior = 0.5 * np.sum((off / deviations) ** 2)
    return float(value + prior), gradient + factors * off / deviations**2
