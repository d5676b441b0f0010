"""Which finalist is best, from repeats with other seeds: means with intervals, and how sure that is. Pure.

Noise is taken to be normal and equal for all finalists: with a handful of repeats each, a variance of one's own would
be little more than a guess. What a seed does to all finalists alike (an easy split) makes each mean less sure, but not
which of them is best: a randomised block design (Fisher 1935, "The Design of Experiments").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tunesvc.search.tracking.objectives import orient
from tunesvc.spec.model import Goal
from tunesvc.util.formatting import number as number_text

CONFIDENCE = 0.95
_ROUNDING = 1e-12
"""Relative differences of values that are taken for rounding."""
DRAWS = 20_000
"""Of the posterior, for the chance to be best: its standard error is below half a per cent."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial that was run again."""

    number: int
    """In the study."""
    observed: float
    """Its value there."""
    values: tuple[float, ...]
    """Of its repeats."""
    failed: int
    """Repeats that came to no value."""
    mean: float | None
    """Of the repeats; None without any."""
    low: float | None
    """Lower end of the interval for the mean; None when the noise is unknown."""
    high: float | None
    chance: float | None
    """That its true mean is the best of all finalists; None when the noise is unknown."""

    def __str__(self) -> str:
        between = "" if self.low is None else f" (95 %: {number_text(self.low)} … {number_text(self.high)})"
        runs = f"{len(self.values)} repeats" + (f", {self.failed} failed" if self.failed else "")
        observed, mean = number_text(self.observed), number_text(self.mean)
        return f"trial {self.number}: observed {observed}, mean {mean}{between}, {runs}"


def compare(
    observed: Mapping[int, float],
    repeats: Mapping[int, Mapping[int, float]],
    failed: Mapping[int, int],
    goal: Goal,
) -> tuple[Finalist, ...]:
    """Finalists, the best mean first.

    The interval is Student's t interval at 95 % with the pooled variance of all repeats. The chance to be best is taken
    from the joint posterior of the means under a flat prior, which is a t distribution too: of their differences with
    equal seeds, where finalists have seeds in common.

    Args:
        observed: trial number -> its value in the study.
        repeats: trial number -> seed -> value of the repeat with that seed.
        failed: trial number -> how many repeats came to no value.
        goal: `minimize` or `maximize`.
    """
    known = {number: repeats[number] for number in observed if repeats.get(number)}
    noise = _Noise.of([(number, seed, value) for number, values in known.items() for seed, value in values.items()])
    chances = noise.chances(goal) if noise else {}
    made = []
    for number, value in observed.items():
        values = np.array(list(known.get(number, {}).values()))
        mean = float(values.mean()) if len(values) else None
        half = noise.half_width(len(values)) if noise and len(values) else None
        low, high = (None, None) if mean is None or half is None else (mean - half, mean + half)
        told = tuple(values.tolist())
        made.append(
            Finalist(
                number,
                value,
                told,
                failed.get(number, 0),
                mean,
                low,
                high,
                chances.get(number),
            )
        )
    orientation = orient(goal)
    return tuple(
        sorted(
            made,
            key=lambda one: (one.mean is None, orientation * (one.mean or 0.0), one.number),
        )
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    """What repeats say about finalists, each with a mean, plus what a seed does to all alike, plus noise."""

    numbers: Sequence[int]
    means: np.ndarray
    """Of the finalists, but for what all have in common."""
    covariance: np.ndarray
    """Of these, in units of the noise's variance."""
    deviation: float
    freedom: int
    """Of that deviation."""
    pooled: float
    """Deviation of the values of one finalist, with what seeds do to all alike."""
    pooled_freedom: float

    @staticmethod
    def of(values: Sequence[tuple[int, int, float]]) -> _Noise | None:
        """From (finalist, seed, value); None while none was repeated, and where repeats are equal."""
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
            return None  # the values of each finalist are equal: what is left is rounding, not noise
        both = np.hstack([of_finalist, of_seed])
        freedom = len(y) - (len(numbers) + len(seeds) - 1)
        if freedom > 0 and np.linalg.matrix_rank(both) == len(numbers) + len(seeds) - 1:
            means, left = _fitted(both, y)
        else:  # seeds that finalists do not share tell nothing about what they do to all
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
        """Of the interval for the mean of so many repeats."""
        return float(stdtrit(self.pooled_freedom, 0.5 + CONFIDENCE / 2)) * self.pooled / math.sqrt(repeats)

    def chances(self, goal: Goal) -> dict[int, float]:
        """By sampling the means: they share one unknown variance, so all of a draw are scaled alike."""
        rng = np.random.default_rng(0)  # the same repeats always give the same answer
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, size=(DRAWS, 1)))
        away = rng.multivariate_normal(
            np.zeros(len(self.means)),
            self.covariance,
            DRAWS,
            method="eigh",
        )
        drawn = self.means + self.deviation * scale * away
        best = (drawn.argmax if goal == "maximize" else drawn.argmin)(axis=1)
        return {number: float((best == index).mean()) for index, number in enumerate(self.numbers)}


def _fitted(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares, and the sum of squares that is left."""
    found, *_ = np.linalg.lstsq(design, y)
    return found, float(((y - design @ found) ** 2).sum())


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a variance from several sums of squares with their own (Satterthwaite 1946); 0 of none.

    What seeds do to all alike was seen once a seed, however many finalists there are.
    """
    spread = sum(squares**2 / freedom for squares, freedom in parts if freedom)
    return sum(squares for squares, _ in parts) ** 2 / spread if spread else 0.0
