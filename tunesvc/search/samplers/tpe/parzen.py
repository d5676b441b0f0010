"""The Parzen estimator of TPE: a mixture of product kernels, and one of the prior.

It equals Optuna's (Watanabe 2023, https://arxiv.org/abs/2304.11127), computed with SciPy's special
functions instead of Python loops; tests compare the two. Knows numbers and distributions, neither
trials nor studies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from scipy.special import log_ndtr, ndtri_exp

Array = npt.NDArray[np.float64]

LATEST = 25
"""Number of latest observations with full weight; the weight of earlier ones falls with age."""
_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_NARROWEST = 100.0
"""A kernel is at least as wide as the range divided by this,
or by the number of kernels if fewer."""
NARROW_FROM = 98
"""Number of observations from which on kernels may have their smallest width."""


def weights_by_age(n: int) -> Array:
    """Weigh `n` observations, the oldest first, by age (Bergstra et al. 2013)."""
    return np.concatenate(
        [
            np.linspace(1 / max(n, 1), 1.0, num=max(n - LATEST, 0)),
            np.ones(min(n, LATEST)),
        ]
    )


def weights_of_sample(n: int, of: int) -> Array:
    """Weigh `n` observations that represent `of`: the latest themselves, the others equal parts."""
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
        of: number of observations that these represent, so that sampling does not raise the
            prior's weight.
    """

    def __init__(
        self,
        observations: Array,
        space: Mapping[str, BaseDistribution],
        weights: Array,
        of: int | None = None,
    ) -> None:
        n = len(observations)
        of = n if of is None else of
        self._prior = n
        self._counts = np.append(weights, 1.0)
        kinds = list(space.values())
        is_choice = [isinstance(kind, CategoricalDistribution) for kind in kinds]
        self._choice_at = [i for i in range(len(kinds)) if is_choice[i]]
        self._number_at = [i for i in range(len(kinds)) if i not in self._choice_at]
        self._choices = []
        for i in self._choice_at:
            observed = observations[:, i].astype(int)
            self._choices.append(_Choices(observed, len(_choices(kinds[i])), of))
        self._axes = [_Axis.of(kinds[i]) for i in self._number_at]
        low = np.array([axis.low for axis in self._axes])
        high = np.array([axis.high for axis in self._axes])
        centres = self._centres(observations)
        mu = np.vstack([centres, 0.5 * (low + high)])
        sigma = np.vstack([_widths(centres, low, high), high - low])
        self._numbers = _Numbers(self._axes, mu, sigma)

    def also(self, observations: Array) -> Parzen:
        """Return this density with further kernels of weight 1 and smallest width; the others stay.

        With many kernels, a density made from all observations would be the same, except for
        kernels in thinly populated places. This way only the new kernels cost time.
        """
        grown = copy.copy(self)
        grown._counts = np.append(self._counts, np.ones(len(observations)))
        grown._choices = [
            choices.also(observations[:, i].astype(int))
            for i, choices in zip(self._choice_at, self._choices, strict=True)
        ]
        grown._numbers = self._numbers.also(self._centres(observations))
        return grown

    @property
    def kernels(self) -> int:
        """Number of kernels: one per observation, and the prior."""
        return len(self._counts)

    def sample(self, rng: np.random.RandomState, size: int) -> Array:
        """Draw points of shape (size, parameters), in Optuna's internal representation."""
        kernels = rng.choice(
            self.kernels,
            p=self._counts / self._counts.sum(),
            size=size,
        )
        points = np.empty((size, len(self._choice_at) + len(self._number_at)))
        for i, choices in zip(self._choice_at, self._choices, strict=True):
            points[:, i] = choices.sample(kernels, rng.rand(size))
        if self._axes:
            drawn = self._numbers.sample(
                kernels,
                rng.uniform(size=(len(self._axes), size)).T,
            )
            for column, (i, axis) in enumerate(zip(self._number_at, self._axes, strict=True)):
                points[:, i] = axis.unscaled(drawn[:, column])
        return points

    def log_density(self, points: Array) -> tuple[Array, Array]:
        """Return the log density at points, shape (m, parameters), and the prior's share."""
        # Log(0) for a kernel that is too far away.
        with np.errstate(
            divide="ignore",
        ):
            logs = self._numbers.log_density(points[:, self._number_at])
            logs += np.log(self._counts)
            for i, choices in zip(self._choice_at, self._choices, strict=True):
                logs += choices.log_mass(points[:, i].astype(int))
        top = logs.max(axis=1)
        density = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return density - np.log(self._counts.sum()), np.exp(logs[:, self._prior] - density)

    def _centres(self, observations: Array) -> Array:
        """Return the centres of the kernels' numbers, on the modelled scales."""
        pairs = zip(self._axes, self._number_at, strict=True)
        columns = [axis.scaled(observations[:, i]) for axis, i in pairs]
        return np.stack(columns, axis=1) if columns else np.empty((len(observations), 0))


class _Numbers:
    """Kernels of numerical parameters: products of truncated normals, or of their mass.

    Everything that does not depend on the points is computed once. The squares are multiplied out,
    so that two matrix products do the rest. From the middle of each range no kernel is more than
    fifty deviations away, so cancellation leaves twelve digits.

    Args:
        mu, sigma: shape (kernels, axes).
    """

    def __init__(self, axes: Sequence[_Axis], mu: Array, sigma: Array) -> None:
        self._axes, self._mu, self._sigma = axes, mu, sigma
        self._low = np.array([axis.low for axis in axes])
        self._high = np.array([axis.high for axis in axes])
        steps = [column for column, axis in enumerate(axes) if axis.step]
        kernels = mu + 1j * sigma
        self._distinct = {i: np.unique(kernels[:, i], return_inverse=True) for i in steps}
        """Distinct kernels of each stepped axis, and for each kernel its index among them."""
        self._smooth = [column for column, axis in enumerate(axes) if not axis.step]
        self._middle = 0.5 * (self._low + self._high)[self._smooth]
        narrow = sigma[:, self._smooth]
        centred = mu[:, self._smooth] - self._middle
        self._square = -0.5 * narrow**-2
        self._linear = -2.0 * centred * self._square
        inside = _log_mass(
            (self._low - mu) / sigma,
            (self._high - mu) / sigma,
        ).sum(axis=1)
        constant = centred * centred * self._square - np.log(narrow) - _LOG_SQRT_2PI
        self._constant = constant.sum(axis=1) - inside

    def also(self, mu: Array) -> _Numbers:
        """Return these kernels and further ones of smallest width."""
        sigma = np.broadcast_to((self._high - self._low) / _NARROWEST, mu.shape)
        more, grown = _Numbers(self._axes, mu, sigma), copy.copy(self)
        for name in ("_mu", "_sigma", "_square", "_linear", "_constant"):
            both = [getattr(self, name), getattr(more, name)]
            setattr(grown, name, np.concatenate(both))
        grown._distinct = {}
        for column, (distinct, at) in self._distinct.items():
            new, new_at = more._distinct[column]
            grown._distinct[column] = (
                np.append(distinct, new),
                np.append(at, new_at + len(distinct)),
            )
        return grown

    def sample(self, kernels: npt.NDArray[np.int_], quantiles: Array) -> Array:
        """Draw a point of each of these kernels, shape (kernels, axes), on the modelled scales."""
        mu, sigma = self._mu[kernels], self._sigma[kernels]
        low, high = (self._low - mu) / sigma, (self._high - mu) / sigma
        return mu + sigma * _truncated(quantiles, low, high)

    def log_density(self, points: Array) -> Array:
        """Return the log density of each kernel at points of shape (m, axes).

        Shape (m, kernels).
        """
        x = self._scaled(points) - self._middle
        logs = x @ self._linear.T + (x * x) @ self._square.T + self._constant
        for column, (distinct, at) in self._distinct.items():
            logs += self._axes[column].log_mass(points[:, column], distinct)[:, at]
        return np.asarray(logs)

    def _scaled(self, points: Array) -> Array:
        columns = [self._axes[column].scaled(points[:, column]) for column in self._smooth]
        return np.stack(columns, axis=1) if columns else np.empty((len(points), 0))


@dataclass(frozen=True, slots=True)
class _Axis:
    """A number's range; `low` and `high` are on the modelled scale, half a step beyond the ends."""

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
        return cls(
            float(scale(low)),
            float(scale(high)),
            float(kind.low),
            float(kind.high),
            step,
            kind.log,
        )

    def scaled(self, values: Array) -> Array:
        return np.asarray(np.log(values) if self.log else values)

    def unscaled(self, values: Array) -> Array:
        values = np.exp(values) if self.log else values
        if self.step:
            values = self.first + np.round((values - self.first) / self.step) * self.step
        return np.clip(values, self.first, self.last)

    def log_mass(
        self,
        values: Array,
        kernels: npt.NDArray[np.complex128],
    ) -> Array:
        """Return the log mass of each value's step by kernel; shape (values, kernels).

        Kernels are complex numbers: centre + i * deviation. Each distinct value is computed once.
        """
        distinct, at = np.unique(values, return_inverse=True)
        below = self.scaled(distinct - self.step / 2)[:, None]
        above = self.scaled(distinct + self.step / 2)[:, None]
        mass = _log_mass(
            (below - kernels.real) / kernels.imag,
            (above - kernels.real) / kernels.imag,
        )
        return np.asarray(mass[at])


class _Choices:
    """Kernels of a categorical parameter: one choice each, smoothed.

    The last kernel is the prior.
    """

    def __init__(
        self,
        observed: npt.NDArray[np.int_],
        n_choices: int,
        of: int,
    ) -> None:
        self._observed = np.append(observed, -1)
        kernels = len(self._observed)
        prior = 1.0 / (of + 1)
        total = 1.0 + n_choices * prior
        self._n, self._of = n_choices, of
        self._hit = np.append(
            np.full(kernels - 1, (1.0 + prior) / total),
            1 / n_choices,
        )
        self._miss = np.append(
            np.full(kernels - 1, prior / total),
            1 / n_choices,
        )

    def also(self, observed: npt.NDArray[np.int_]) -> _Choices:
        """Return these kernels and further ones, smoothed alike."""
        more, grown = _Choices(observed, self._n, self._of), copy.copy(self)
        for name in ("_observed", "_hit", "_miss"):
            both = [getattr(self, name), getattr(more, name)[:-1]]
            setattr(grown, name, np.concatenate(both))
        return grown

    def sample(
        self,
        kernels: npt.NDArray[np.int_],
        quantiles: Array,
    ) -> npt.NDArray[np.int_]:
        mass = np.repeat(self._miss[kernels][:, None], self._n, axis=1)
        concrete = np.flatnonzero(self._observed[kernels] >= 0)
        mass[concrete, self._observed[kernels][concrete]] = self._hit[kernels][concrete]
        upto = np.cumsum(mass, axis=1)
        upto[:, -1] = 1.0  # rounding could leave a gap
        return np.asarray((upto < quantiles[:, None]).sum(axis=1))

    def log_mass(self, chosen: npt.NDArray[np.int_]) -> Array:
        return np.asarray(
            np.where(
                chosen[:, None] == self._observed,
                np.log(self._hit),
                np.log(self._miss),
            )
        )


def _choices(kind: BaseDistribution) -> tuple[Any, ...]:
    return kind.choices if isinstance(kind, CategoricalDistribution) else ()


def _widths(centres: Array, low: Array, high: Array) -> Array:
    """Return each kernel's deviation by column: the larger distance to a neighbour."""
    n = len(centres)
    order = np.argsort(centres, axis=0)
    ends = np.vstack([low, np.take_along_axis(centres, order, axis=0), high])
    gaps = np.diff(ends, axis=0)
    widths = np.maximum(gaps[:-1], gaps[1:])
    if n >= 2:  # the ends of the range are no neighbours
        widths[0], widths[-1] = gaps[1], gaps[-2]
    unsorted = np.empty_like(widths)
    np.put_along_axis(unsorted, order, widths, axis=0)
    return np.clip(
        unsorted,
        (high - low) / min(_NARROWEST, n + 2.0),
        high - low,
    )


def _log_mass(a: Array, b: Array) -> Array:
    """Return the log normal mass between a and b, computed in the accurate left tail."""
    flip = a > 0
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    most = log_ndtr(upper)
    return np.asarray(most + np.log1p(-np.exp(log_ndtr(lower) - most)))


def _truncated(quantiles: Array, a: Array, b: Array) -> Array:
    """Return quantiles of a standard normal truncated to [a, b]."""
    flip = a > 0
    q, lower = np.where(flip, 1 - quantiles, quantiles), np.where(flip, -b, a)
    with np.errstate(divide="ignore"):  # a quantile of 0 is the lower end
        below = np.logaddexp(log_ndtr(lower), np.log(q) + _log_mass(a, b))
    drawn = ndtri_exp(np.minimum(below, 0.0))
    return np.asarray(np.clip(np.where(flip, -drawn, drawn), a, b))
