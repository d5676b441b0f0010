"""Gaussian-process regression over points of a `Domain`.

The covariance is a Matérn 5/2 over a distance with one length scale per parameter, numbers on
warped axes where that explains the values better, choices at distance 0 or 1, absent numbers beside
the middle of their range, plus a term for each distinct point: the effect of a configuration beyond
its neighbours. With fitted noise, this separates a lucky draw from a good configuration. Where
observations share training seeds, the effect of a seed on all points alike has its own term. Noise
is then the effect of a seed on one point, which the same point with the same seed has again, up to
a remainder (a block design with interaction). Hyperparameters maximise the marginal likelihood
under log-normal priors (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
chapter 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from tunesvc.search.samplers.gp.model.domain import ABSENT
from tunesvc.search.samplers.gp.model.warping import Warping

JITTER = 1e-6
_BESIDE = 0.5
"""Distance of an absent number from the middle of its range, at a right angle to it: so it is about
equally far from all its values (Hutter and Osborne 2013, "A kernel for hierarchical parameter
spaces")."""
_MIDDLE = 0.5
_FEWEST = 3
"""Fewest observations of which each can be predicted from the others."""
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
    warping: Warping | None = None
    """Warp of each parameter's axis; None: none."""

    @property
    def prior(self) -> float:
        """Variance of the function far from any observation."""
        return self.signal + self.own


_LENGTH, _LENGTH_OF_CHOICES = (np.log(0.5), 1.0, 1.0), (np.log(1.2), 1.0, 1.0)
"""Mode of a length scale's logarithm, and its deviations below and above. Choices are 1 apart,
numbers 0.4 of their range on average, so scales of choices are that much longer. Otherwise
configurations that differ in a few choices would be unrelated."""
_LENGTH_OF_DECIDING = np.log(0.6)
"""Mode of the same for a choice that decides which parameters exist, such as that of a model: what
is known of one model says little of another, and one that was tried once with poor parameters would
be given up."""
_LENGTH_OF_SOURCES = np.log(2.5)
"""Mode of the same for the entry of a study. Values of an only earlier study correlate by 0.88
then, and by what explains them best once there are some of both (a process of several tasks, as of
Bonilla, Chai and Williams 2008, "Multi-task Gaussian process prediction", with a weight for each
study, and so no negative correlations)."""
_FEW_PARAMETERS = 8
"""With more, length scales grow with the root of their number, as distances do (Hvarfner et al.
2024, "Vanilla Bayesian optimization performs great in high dimensions")."""
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
_WARP = (0.0, 0.5, 0.5)
"""Prior of the logarithm of a warp's exponent: most axes are well chosen (Snoek et al. 2014)."""
_WARP_BOUNDS = (-2.5, 2.5)
_WARP_GAIN = 3.0
"""Least gain of the log posterior for which axes are warped: with a few points, a warp explains
much by chance, and then hides other valleys."""
_STEPS_MAX = 25
"""Most steps of a fit."""


def fit(
    points: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    choices: np.ndarray,
    seeds: np.ndarray | None = None,
    *,
    decides: np.ndarray | None = None,
    is_source: np.ndarray | None = None,
    jumps: bool = False,
) -> Hyperparameters:
    """Return the most probable hyperparameters, from a fixed start, so that only data counts.

    Args:
        points: shape (n, parameters).
        values: shape (n,), of mean 0 and variance 1 or so.
        variances: of observations, beyond the noise to be fitted; shape (n,).
        choices: number of choices of each parameter, 0 for a number; shape (parameters,).
        seeds: equal where observations share a training seed; shape (n,). None: all differ.
        decides: True for choices on which the existence of other parameters depends; shape
            (parameters,).
        is_source: True for entries of studies; shape (parameters,).
        jumps: True if the function may have steps, like violations of a constraint; for
            observations that share no seeds.
    """
    data = _Data.of(points, values, variances, choices, seeds)
    columns, numbers = len(choices), data.numbers.shape[1]
    of_flat = (_FLAT_OF_STEPS if jumps else _FLAT)[: len(data.flat)]
    lengths = np.where(data.is_choice[:, None], _LENGTH_OF_CHOICES, _LENGTH)
    parameters = columns if is_source is None else int((~is_source).sum())
    lengths[:, 0] += 0.5 * np.log(max(parameters / _FEW_PARAMETERS, 1.0))
    if decides is not None:
        lengths[decides, 0] = _LENGTH_OF_DECIDING
    if is_source is not None:
        lengths[is_source, 0] = _LENGTH_OF_SOURCES
    priors = np.vstack([lengths, _SIGNAL, of_flat[:, :3], np.tile(_WARP, (2 * numbers, 1))])
    start = np.concatenate(
        [-2 * lengths[:, 0], [_SIGNAL[0]], _FLAT_START[: len(of_flat)], np.zeros(2 * numbers)]
    )
    bounds = [(-8.0, 6.0)] * columns + [(-3.0, 3.0), *of_flat[:, 3:]]
    found = _minimise(start, bounds + [(0.0, 0.0)] * (2 * numbers), data, priors)
    warped = _minimise(start, bounds + [_WARP_BOUNDS] * (2 * numbers), data, priors)
    if warped.fun < found.fun - _WARP_GAIN:
        found = warped
    theta = _Theta.of(found.x, data)
    own, noise, shift, rest = [*map(float, theta.of_flat), 0.0, 0.0][:4]
    warping = Warping.identity(columns)
    warping.a[~data.is_choice] = theta.warping.a
    warping.b[~data.is_choice] = theta.warping.b
    return Hyperparameters(
        theta.weights,
        theta.signal,
        own,
        noise,
        shift,
        rest,
        -float(found.fun),
        warping,
    )


def _minimise(
    start: np.ndarray,
    bounds: Sequence[tuple[float, float]],
    data: _Data,
    priors: np.ndarray,
) -> optimize.OptimizeResult:
    return optimize.minimize(
        _negative_log_posterior,
        start,
        (data, priors),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _STEPS_MAX},
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
        self.warping = known.warping or Warping.identity(len(choices))
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
        self._values = values
        self._weights = linalg.cho_solve(
            (self._factor, True),
            values,
            check_finite=False,
        )

    def imagined(self, normals: np.ndarray) -> Posterior:
        """Return several posteriors at once: the values of the last observations are not those
        given but drawn, jointly and given the others. Means have a column for each draw.

        Whitened by the Cholesky factor, values that are unknown are independent standard normals.

        Args:
            normals: standard normal numbers; shape (last observations, draws).
        """
        whitened = linalg.solve_triangular(
            self._factor, self._values, lower=True, check_finite=False
        )
        known = len(self._values) - len(normals)
        columns = np.tile(whitened[:known, None], normals.shape[1])
        drawn = copy(self)
        drawn._weights = linalg.solve_triangular(
            self._factor,
            np.vstack([columns, normals]),
            lower=True,
            trans="T",
            check_finite=False,
        )
        return drawn

    def skill(self) -> float:
        """Return how much better the model predicts each observation from the others than a
        constant does: the difference of the log predictive densities, in nats.

        Leave-one-out predictions follow from one inverse (Rasmussen and Williams, 5.10-5.12).
        """
        n = len(self._values)
        if n < _FEWEST or not np.ptp(self._values):
            return 0.0
        inverse, _ = linalg.lapack.dpotri(self._factor, lower=1)
        precisions = np.diag(inverse)
        off = self._weights / precisions
        mean_of_others = (self._values.sum() - self._values) / (n - 1)
        variance = self._values.var() * n / (n - 1)
        by_model = np.log(precisions) - precisions * off**2
        by_constant = -np.log(variance) - (self._values - mean_of_others) ** 2 / variance
        return float(0.5 * (by_model - by_constant).sum())

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

    def joint(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and covariance of the function itself, without noise.

        Shapes (points,) and (points, points).
        """
        features = self._embed(points)
        cross = self._covariance(self._squares(features))
        solved = self._solve(cross)
        among = copy(self)
        among._features = features
        prior = among._covariance(among._squares(features))
        covariance: np.ndarray = prior - solved.T @ solved
        covariance[np.diag_indices(len(points))] += JITTER
        return cross @ self._weights, covariance

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

    def correlation(self, differing: np.ndarray) -> float:
        """Return the correlation of values of one configuration in two studies.

        Args:
            differing: True for the entries in which they differ; shape (parameters,).
        """
        smooth, _ = matern(self.known.weights[differing].sum())
        return self.known.signal * float(smooth) / self.known.prior

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
        smooth, _ = matern(squares)
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
        along, beside = coordinates_of(points[:, is_number], self.warping.of(is_number))
        parts = [along * scales[is_number], beside * scales[is_number]]
        for j in np.flatnonzero(~is_number):
            # The last corner, index -1, stands for an absent choice.
            corners = np.zeros((len(points), self._choices[j] + 1))
            corners[np.arange(len(points)), points[:, j].astype(int)] = scales[j] / np.sqrt(2)
            parts.append(corners)
        return np.hstack(parts)


def coordinates_of(numbers: np.ndarray, warping: Warping) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates of numbers along their ranges and beside them; both shaped alike."""
    is_absent = numbers == ABSENT
    along = warping.to(np.where(is_absent, _MIDDLE, numbers))
    return np.where(is_absent, _MIDDLE, along), _BESIDE * is_absent


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


def matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Matérn 5/2 function of squared distances, and its derivative by them."""
    root = np.sqrt(5.0 * np.maximum(squares, 0.0))
    decay = np.exp(-root)
    return (1.0 + root + root**2 / 3.0) * decay, -(5.0 / 6.0) * (1.0 + root) * decay


@dataclass(frozen=True, slots=True)
class _Data:
    """Observations that hyperparameters are fitted to."""

    is_choice: np.ndarray
    numbers: np.ndarray
    """Places of numbers; shape (n, numbers)."""
    apart: np.ndarray
    """1 where two points differ in a choice; shape (choices, n * n)."""
    flat: np.ndarray
    """Masks of the terms that do not fade with distance; shape (terms, n, n)."""
    values: np.ndarray
    variances: np.ndarray

    @staticmethod
    def of(
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
        choices: np.ndarray,
        seeds: np.ndarray | None,
    ) -> _Data:
        """Take arrays shaped as in `fit`."""
        is_choice = choices > 0
        differs = (points[:, None, :] != points[None, :, :]).transpose(2, 0, 1)
        each_its_own = np.arange(len(points)) if seeds is None else seeds
        return _Data(
            is_choice,
            points[:, ~is_choice],
            differs[is_choice].reshape(-1, len(points) ** 2).astype(float),
            _flat(~differs.any(axis=0), each_its_own),
            values,
            variances,
        )


@dataclass(frozen=True, slots=True)
class _Theta:
    """Hyperparameters as they are fitted: all but the warping as logarithms in one vector."""

    weights: np.ndarray
    signal: float
    of_flat: np.ndarray
    warping: Warping
    """Warp of the numbers' axes."""

    @staticmethod
    def of(theta: np.ndarray, data: _Data) -> _Theta:
        columns, numbers = len(data.is_choice), data.numbers.shape[1]
        known = np.exp(theta)
        warps = known[len(known) - 2 * numbers :]
        return _Theta(
            known[:columns],
            float(known[columns]),
            known[columns + 1 : len(known) - 2 * numbers],
            Warping(warps[:numbers], warps[numbers:]),
        )


def _flat(same: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the masks of the terms that do not fade with distance; shape (terms, n, n).

    `own`, `noise`, and if any seed is shared `shift` and `rest`.
    """
    alike = seeds[:, None] == seeds
    terms = [same, same & alike]
    if alike.sum() > len(seeds):
        terms += [alike, np.eye(len(seeds))]
    return np.array(terms, dtype=float)


def _squared_distances(
    coordinates: np.ndarray,
    weights: np.ndarray,
    data: _Data,
) -> np.ndarray:
    """Return squared distances of all points, in length scales; shape (n, n)."""
    scaled = coordinates * np.sqrt(np.tile(weights[~data.is_choice], 2))
    sums = (scaled**2).sum(axis=1)
    of_numbers = sums[:, None] + sums - 2 * scaled @ scaled.T
    of_choices = weights[data.is_choice] @ data.apart
    out: np.ndarray = of_numbers + of_choices.reshape(of_numbers.shape)
    return out


def _negative_log_posterior(
    theta: np.ndarray,
    data: _Data,
    priors: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Return the negative log posterior and its gradient.

    Args:
        theta: logarithms of weights, signal, flat terms, and the warps' exponents.
        priors: mode, and deviation below and above, of each; shape (len(theta), 3).
    """
    known, n = _Theta.of(theta, data), len(data.values)
    of_numbers, of_choices = known.weights[~data.is_choice], known.weights[data.is_choice]
    coordinates = np.hstack(coordinates_of(data.numbers, known.warping))
    smooth, slope = matern(_squared_distances(coordinates, known.weights, data))
    covariance = known.signal * smooth + np.tensordot(known.of_flat, data.flat, axes=1)
    covariance[np.diag_indices(n)] += data.variances + JITTER
    try:
        factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    solved = linalg.cho_solve((factor, True), data.values, check_finite=False)
    inverse, _ = linalg.lapack.dpotri(factor, lower=1)
    inverse += np.tril(inverse, -1).T  # LAPACK fills only the lower triangle
    misfit = inverse - np.outer(solved, solved)
    by_square = 0.5 * known.signal * misfit * slope
    by_weight = np.empty(len(known.weights))
    by_weight[data.is_choice] = of_choices * (data.apart @ by_square.ravel())
    # Derivatives by each coordinate follow from sum_ij G_ij w (u_i - u_j)^2, by u_i.
    pull = by_square.sum(axis=1)[:, None] * coordinates - by_square @ coordinates
    along, beside = np.hsplit(coordinates * pull, 2)
    by_weight[~data.is_choice] = 2 * of_numbers * (along + beside).sum(axis=0)
    by_place = 4 * of_numbers * np.hsplit(pull, 2)[0]
    by_exponent = [(by_place * slopes).sum(axis=0) for slopes in known.warping.slopes(data.numbers)]
    gradient = np.concatenate(
        [
            by_weight,
            [0.5 * known.signal * np.vdot(misfit, smooth)],
            0.5 * known.of_flat * np.tensordot(data.flat, misfit, axes=2),
            *by_exponent,
        ]
    )
    value = 0.5 * data.values @ solved + np.log(np.diag(factor)).sum()
    # A length scale's logarithm is -1/2 times that of its weight.
    factors = np.ones(len(theta))
    factors[: len(known.weights)] = -0.5
    modes, below, above = priors.T
    off = factors * theta - modes
    deviations = np.where(off < 0.0, below, above)
    prior = 0.5 * np.sum((off / deviations) ** 2)
    return float(value + prior), gradient + factors * off / deviations**2
