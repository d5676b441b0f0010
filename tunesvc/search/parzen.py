"""The Parzen estimator of TPE: a mixture with one product kernel per observation, and one for the prior.

It is Optuna's (Watanabe 2023, https://arxiv.org/abs/2304.11127), computed with SciPy's special functions instead of
Python loops; tests hold it against Optuna's. Knows numbers and distributions, neither trials nor studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import log_ndtr, ndtri_exp

Array = npt.NDArray[np.float64]

LATEST = 25
"""So many of the latest observations have full weight; before them it falls with age."""
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_NARROWEST = 100.0
"""A kernel is never narrower than the range divided by this, or by the number of kernels when they are fewer."""


def weights_by_age(n: int) -> Array:
    """What `n` observations count, the oldest first (Bergstra et al. 2013): 1 for the latest, falling with age."""
    return np.concatenate([np.linspace(1 / max(n, 1), 1.0, num=max(n - LATEST, 0)), np.ones(min(n, LATEST))])


def weights_of_sample(n: int, of: int) -> Array:
    """What `n` observations count that stand in for more: the latest for themselves, the others for even parts."""
    weights, older = weights_by_age(of), n - LATEST
    if older <= 0 or n == of:
        return weights_by_age(n)
    starts = np.arange(older) * (of - LATEST) // older
    return np.concatenate([np.add.reduceat(weights[:-LATEST], starts), np.ones(LATEST)])


class Parzen:
    """A density over a space.

    Args:
        observations: shape (n, parameters), in Optuna's internal representation, the oldest first.
        space: the parameters, in the order of the columns.
        weights: shape (n,); the prior's is 1.
        of: how many observations these stand in for; so the prior does not gain from their being a sample.
    """

    def __init__(
        self, observations: Array, space: Mapping[str, BaseDistribution], weights: Array, of: int | None = None
    ) -> None:
        n = len(observations)
        of = n if of is None else of
        self._weights = np.append(weights, 1.0) / (weights.sum() + 1.0)
        kinds = list(space.values())
        self._choice_at = [i for i, kind in enumerate(kinds) if isinstance(kind, CategoricalDistribution)]
        self._number_at = [i for i in range(len(kinds)) if i not in self._choice_at]
        self._choices = [_Choices(observations[:, i].astype(int), len(_choices(kinds[i])), of) for i in self._choice_at]
        self._axes = [_Axis.of(kinds[i]) for i in self._number_at]
        self._low = np.array([axis.low for axis in self._axes])
        self._high = np.array([axis.high for axis in self._axes])
        columns = [axis.scaled(observations[:, i]) for axis, i in zip(self._axes, self._number_at, strict=True)]
        centres = np.stack(columns, axis=1) if columns else np.empty((n, 0))
        self._mu = np.vstack([centres, 0.5 * (self._low + self._high)])
        self._sigma = np.vstack([_widths(centres, self._low, self._high), self._high - self._low])

    @property
    def kernels(self) -> int:
        """One per observation, and the prior."""
        return len(self._weights)

    def sample(self, rng: np.random.RandomState, size: int) -> Array:
        """Random points, shape (size, parameters), in Optuna's internal representation."""
        kernels = rng.choice(self.kernels, p=self._weights, size=size)
        points = np.empty((size, len(self._choice_at) + len(self._number_at)))
        for i, choices in zip(self._choice_at, self._choices, strict=True):
            points[:, i] = choices.sample(kernels, rng.rand(size))
        if self._axes:
            quantiles = rng.uniform(size=(len(self._axes), size)).T
            mu, sigma = self._mu[kernels], self._sigma[kernels]
            drawn = mu + sigma * _truncated(quantiles, (self._low - mu) / sigma, (self._high - mu) / sigma)
            for column, (i, axis) in enumerate(zip(self._number_at, self._axes, strict=True)):
                points[:, i] = axis.unscaled(drawn[:, column])
        return points

    def log_density(self, points: Array) -> tuple[Array, Array]:
        """The logarithm of the density at points of shape (m, parameters), and the prior's share in it, from 0 to 1."""
        with np.errstate(divide="ignore"):  # a kernel too far away to be seen: log(0)
            logs = np.broadcast_to(np.log(self._weights), (len(points), self.kernels)).copy()
            for i, choices in zip(self._choice_at, self._choices, strict=True):
                logs += choices.log_mass(points[:, i].astype(int))
            self._add_numbers(logs, points)
        top = logs.max(axis=1)
        density = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return density, np.exp(logs[:, -1] - density)

    def _add_numbers(self, logs: Array, points: Array) -> None:
        if not self._axes:
            return
        inside = _log_mass((self._low - self._mu) / self._sigma, (self._high - self._mu) / self._sigma)
        logs -= inside.sum(axis=1)
        for column, (i, axis) in enumerate(zip(self._number_at, self._axes, strict=True)):
            if axis.step:
                logs += axis.log_mass(points[:, i], self._mu[:, column], self._sigma[:, column])
        smooth = [column for column, axis in enumerate(self._axes) if not axis.step]
        if smooth:
            scaled = [self._axes[column].scaled(points[:, self._number_at[column]]) for column in smooth]
            logs += self._log_normal(np.stack(scaled, axis=1), smooth)

    def _log_normal(self, points: Array, columns: list[int]) -> Array:
        """Of points by kernel, over several columns at once: shape (points, kernels).

        Squares are multiplied out, so that two products of matrices do the work. From the middle of each range no
        kernel is more than fifty deviations away, so what cancels out leaves twelve digits.
        """
        middle = 0.5 * (self._low + self._high)[columns]
        x, mu = points - middle, self._mu[:, columns] - middle
        precision = self._sigma[:, columns] ** -2
        constant = (0.5 * mu * mu * precision + np.log(self._sigma[:, columns]) + _LOG_SQRT_2PI).sum(axis=1)
        return np.asarray(x @ (mu * precision).T - 0.5 * (x * x) @ precision.T - constant)


@dataclass(frozen=True, slots=True)
class _Axis:
    """A number's range; `low` and `high` on the scale that is modelled, half a step beyond the ends."""

    low: float
    high: float
    first: float
    last: float
    step: float
    log: bool

    @classmethod
    def of(cls, kind: BaseDistribution) -> _Axis:
        if not isinstance(kind, FloatDistribution | IntDistribution):
            raise TypeError(f"no numerical distribution: {kind}")
        step = float(kind.step or 0.0)
        low, high = kind.low - step / 2, kind.high + step / 2
        scale: Any = np.log if kind.log else float
        return cls(float(scale(low)), float(scale(high)), float(kind.low), float(kind.high), step, kind.log)

    def scaled(self, values: Array) -> Array:
        return np.asarray(np.log(values) if self.log else values)

    def unscaled(self, values: Array) -> Array:
        values = np.exp(values) if self.log else values
        if self.step:
            values = self.first + np.round((values - self.first) / self.step) * self.step
        return np.clip(values, self.first, self.last)

    def log_mass(self, values: Array, mu: Array, sigma: Array) -> Array:
        """Of a step, by kernel: shape (values, kernels). Each different value and kernel is computed once."""
        distinct, at = np.unique(values, return_inverse=True)
        kernels, kernel_at = np.unique(mu + 1j * sigma, return_inverse=True)
        below = self.scaled(distinct - self.step / 2)[:, None]
        above = self.scaled(distinct + self.step / 2)[:, None]
        mass = _log_mass((below - kernels.real) / kernels.imag, (above - kernels.real) / kernels.imag)
        return np.asarray(mass[np.ix_(at, kernel_at)])


class _Choices:
    """Kernels of a categorical parameter: one choice each, smoothed by the prior; the last kernel is the prior."""

    def __init__(self, observed: npt.NDArray[np.int_], n_choices: int, of: int) -> None:
        self._observed = np.append(observed, -1)
        kernels = len(self._observed)
        prior = 1.0 / (of + 1)
        total = 1.0 + n_choices * prior
        self._n = n_choices
        self._hit = np.append(np.full(kernels - 1, (1.0 + prior) / total), 1 / n_choices)
        self._miss = np.append(np.full(kernels - 1, prior / total), 1 / n_choices)

    def sample(self, kernels: npt.NDArray[np.int_], quantiles: Array) -> npt.NDArray[np.int_]:
        mass = np.repeat(self._miss[kernels][:, None], self._n, axis=1)
        concrete = np.flatnonzero(self._observed[kernels] >= 0)
        mass[concrete, self._observed[kernels][concrete]] = self._hit[kernels][concrete]
        upto = np.cumsum(mass, axis=1)
        upto[:, -1] = 1.0  # rounding must not leave a gap
        return np.asarray((upto < quantiles[:, None]).sum(axis=1))

    def log_mass(self, chosen: npt.NDArray[np.int_]) -> Array:
        return np.asarray(np.where(chosen[:, None] == self._observed, np.log(self._hit), np.log(self._miss)))


def _choices(kind: BaseDistribution) -> tuple[Any, ...]:
    return kind.choices if isinstance(kind, CategoricalDistribution) else ()


def _widths(centres: Array, low: Array, high: Array) -> Array:
    """Each kernel's deviation, by column: the larger of the distances to its neighbours, within bounds."""
    n = len(centres)
    order = np.argsort(centres, axis=0)
    ends = np.vstack([low, np.take_along_axis(centres, order, axis=0), high])
    gaps = np.diff(ends, axis=0)
    widths = np.maximum(gaps[:-1], gaps[1:])
    if n >= 2:  # the ends of the range are no neighbours
        widths[0], widths[-1] = gaps[1], gaps[-2]
    unsorted = np.empty_like(widths)
    np.put_along_axis(unsorted, order, widths, axis=0)
    return np.clip(unsorted, (high - low) / min(_NARROWEST, n + 2.0), high - low)


def _log_mass(a: Array, b: Array) -> Array:
    """The logarithm of the normal mass between a and b, computed in the left tail, where it is accurate."""
    flip = a > 0
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    most = log_ndtr(upper)
    return np.asarray(most + np.log1p(-np.exp(log_ndtr(lower) - most)))


def _truncated(quantiles: Array, a: Array, b: Array) -> Array:
    """Quantiles of a standard normal truncated to [a, b]."""
    flip = a > 0
    q, lower = np.where(flip, 1 - quantiles, quantiles), np.where(flip, -b, a)
    with np.errstate(divide="ignore"):  # a quantile of 0 is the lower end
        below = np.logaddexp(log_ndtr(lower), np.log(q) + _log_mass(a, b))
    drawn = ndtri_exp(np.minimum(below, 0.0))
    return np.asarray(np.clip(np.where(flip, -drawn, drawn), a, b))
