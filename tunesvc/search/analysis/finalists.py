"""Comparison of finalists by repeats with other seeds: means, intervals, chances to be best. Pure.

Noise is assumed to be normal and equal for all finalists: with a handful of repeats each, separate
variances would be little more than guesses. An effect of a seed on all finalists alike (an easy
split) makes each mean less certain, but not their order: a randomised block design (Fisher 1935,
"The Design of Experiments").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesvc.spec.goals import Goal, orient
from tunesvc.util.formatting import number as number_text

CONFIDENCE = 0.95
_ROUNDING = 1e-12
"""Relative differences of values that count as rounding."""
DRAWS = 20_000
"""Posterior draws for the chance to be best: its standard error is below 0.5 %."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial that was repeated."""

    number: int
    """Trial number in the study."""
    observed: float
    """Value in the study."""
    values: tuple[float, ...]
    """Values of the repeats."""
    failed: int
    """Number of repeats without a value."""
    mean: float | None
    """Mean of the repeats; None without any."""
    low: float | None
    """Lower bound of the mean's interval; None if the noise is unknown."""
    high: float | None
    chance: float | None
    """Chance that its true mean is the best of all finalists; None if the noise is unknown."""

    def __str__(self) -> str:
        between = ""
        if self.low is not None:
            between = f" (95 %: {number_text(self.low)} … {number_text(self.high)})"
        runs = f"{len(self.values)} repeats"
        if self.failed:
            runs += f", {self.failed} failed"
        observed, mean = number_text(self.observed), number_text(self.mean)
        return f"trial {self.number}: observed {observed}, mean {mean}{between}, {runs}"


def compare(
    observed: Mapping[int, float],
    repeats: Mapping[int, Mapping[int, float]],
    failed: Mapping[int, int],
    goal: Goal,
) -> tuple[Finalist, ...]:
    """Return finalists, the best mean first.

    The interval is Student's t interval at 95 % with the pooled variance of all repeats. The chance
    to be best comes from the joint posterior of the means under a flat prior, which is a t
    distribution too. Where finalists share seeds, differences with equal seeds count.

    Args:
        observed: trial number -> its value in the study.
        repeats: trial number -> seed -> value of the repeat with that seed.
        failed: trial number -> number of repeats without a value.
        goal: `minimize` or `maximize`.
    """
    known = {number: repeats[number] for number in observed if repeats.get(number)}
    results = []
    for number, by_seed in known.items():
        results += [(number, seed, value) for seed, value in by_seed.items()]
    noise = _Noise.of(results)
    chances = noise.chances(goal) if noise else {}
    made = []
    for number, value in observed.items():
        values = np.array(list(known.get(number, {}).values()))
        mean, low, high = None, None, None
        if len(values):
            mean = float(values.mean())
        if mean is not None and noise:
            half = noise.half_width(len(values))
            low, high = mean - half, mean + half
        finalist = Finalist(
            number,
            value,
            tuple(values.tolist()),
            failed.get(number, 0),
            mean,
            low,
            high,
            chances.get(number),
        )
        made.append(finalist)
    orientation = orient(goal)
    made.sort(
        key=lambda one: (
            one.mean is None,
            orientation * (one.mean or 0.0),
            one.number,
        )
    )
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Noise:
    """Model of repeats: a mean per finalist, an effect per seed on all alike, and noise."""

    numbers: Sequence[int]
    means: np.ndarray
    """Means of the finalists, up to a common constant."""
    covariance: np.ndarray
    """Covariance of the means, in units of the noise's variance."""
    deviation: float
    freedom: int
    """Degrees of freedom of the deviation."""
    pooled: float
    """Deviation of one finalist's values, seed effects included."""
    pooled_freedom: float

    @staticmethod
    def of(values: Sequence[tuple[int, int, float]]) -> _Noise | None:
        """Fit (finalist, seed, value); None if none was repeated, or repeats are equal."""
        numbers = list(dict.fromkeys(number for number, _, _ in values))
        seeds = list(dict.fromkeys(seed for _, seed, _ in values))
        y = np.array([value for *_, value in values])
        of_finalist = np.array(
            [[number == one[0] for number in numbers] for one in values],
            dtype=float,
        )
        of_seed = np.array(
            [[seed == one[1] for seed in seeds] for one in values],
            dtype=float,
        )
        pooled_freedom = len(y) - len(numbers)
        if pooled_freedom <= 0:
            return None
        means, within = _fitted(of_finalist, y)
        if within <= len(y) * (_ROUNDING * float(np.abs(y).max())) ** 2:
            return None  # each finalist's values are equal up to rounding
        both = np.hstack([of_finalist, of_seed])
        freedom = len(y) - (len(numbers) + len(seeds) - 1)
        if freedom > 0 and np.linalg.matrix_rank(both) == len(numbers) + len(seeds) - 1:
            means, left = _fitted(both, y)
        else:  # without shared seeds, their common effects cannot be estimated
            both, left, freedom = of_finalist, within, pooled_freedom
        covariance = np.linalg.pinv(both.T @ both)[: len(numbers), : len(numbers)]
        parts = [(left, freedom), (within - left, pooled_freedom - freedom)]
        return _Noise(
            numbers,
            means[: len(numbers)],
            covariance,
            math.sqrt(left / freedom),
            freedom,
            math.sqrt(within / pooled_freedom),
            _satterthwaite(parts) or pooled_freedom,
        )

    def half_width(self, repeats: int) -> float:
        """Return half the width of the interval for the mean of so many repeats."""
        from scipy.special import stdtrit  # slow to import

        quantile = float(stdtrit(self.pooled_freedom, 0.5 + CONFIDENCE / 2))
        return quantile * self.pooled / math.sqrt(repeats)

    def chances(self, goal: Goal) -> dict[int, float]:
        """Sample the means; one unknown variance scales a whole draw."""
        rng = np.random.default_rng(0)  # deterministic for the same repeats
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, size=(DRAWS, 1)))
        away = rng.multivariate_normal(
            np.zeros(len(self.means)),
            self.covariance,
            DRAWS,
            method="eigh",
        )
        drawn = self.means + self.deviation * scale * away
        best = (drawn.argmax if goal == "maximize" else drawn.argmin)(axis=1)
        shares = (best[:, None] == np.arange(len(self.numbers))).mean(axis=0)
        return {number: float(share) for number, share in zip(self.numbers, shares, strict=True)}


def _fitted(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the least-squares solution, and the remaining sum of squares."""
    found, *_ = np.linalg.lstsq(design, y)
    return found, float(((y - design @ found) ** 2).sum())


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a variance from several sums of squares; 0 without any.

    Satterthwaite 1946. An effect of a seed on all alike is observed once per seed, however many
    finalists there are.
    """
    spread = sum(squares**2 / freedom for squares, freedom in parts if freedom)
    return sum(squares for squares, _ in parts) ** 2 / spread if spread else 0.0
