"""Which finalist is best, from repeats with other seeds: means with intervals, and how sure that is. Pure.

Noise is taken to be normal and equal for all finalists: with a handful of repeats each, a variance of one's own would
be little more than a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tunesvc.spec.model import Goal

CONFIDENCE = 0.95
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


def compare(
    observed: Mapping[int, float], repeats: Mapping[int, Sequence[float]], failed: Mapping[int, int], goal: Goal
) -> tuple[Finalist, ...]:
    """Finalists, the best mean first.

    The interval is Student's t interval at 95 % with the pooled variance of all repeats; the chance to be best is taken
    from the joint posterior of the means under a flat prior, which is that same t distribution.

    Args:
        observed: trial number -> its value in the study.
        repeats: trial number -> values of its repeats.
        failed: trial number -> how many repeats came to no value.
        goal: `minimize` or `maximize`.
    """
    known = {number: np.asarray(repeats.get(number, ()), dtype=float) for number in observed}
    freedom = sum(max(0, len(values) - 1) for values in known.values())
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in known.values() if len(values) > 1)
    deviation = math.sqrt(squares / freedom) if freedom else None
    chances = _chances(known, deviation, freedom, goal)
    made = [
        _finalist(number, observed[number], known[number], failed.get(number, 0), deviation, freedom, chances)
        for number in observed
    ]
    sign = -1.0 if goal == "maximize" else 1.0
    return tuple(sorted(made, key=lambda one: (one.mean is None, sign * (one.mean or 0.0), one.number)))


def _finalist(
    number: int,
    observed: float,
    values: np.ndarray,
    failed: int,
    deviation: float | None,
    freedom: int,
    chances: Mapping[int, float],
) -> Finalist:
    mean = float(values.mean()) if len(values) else None
    low = high = None
    if mean is not None and deviation is not None:
        half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * deviation / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return Finalist(number, observed, tuple(map(float, values)), failed, mean, low, high, chances.get(number))


def _chances(known: Mapping[int, np.ndarray], deviation: float | None, freedom: int, goal: Goal) -> dict[int, float]:
    """By sampling the means: they share one unknown variance, so all of a draw are scaled alike."""
    numbers = [number for number, values in known.items() if len(values)]
    if deviation is None or not numbers:
        return {}
    rng = np.random.default_rng(0)  # the same repeats always give the same answer
    means = np.array([known[number].mean() for number in numbers])
    spread = deviation / np.sqrt([len(known[number]) for number in numbers])
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(DRAWS, 1)))
    drawn = means + rng.standard_normal((DRAWS, len(numbers))) * spread * scale
    best = (drawn.argmax if goal == "maximize" else drawn.argmin)(axis=1)
    return {number: float((best == index).mean()) for index, number in enumerate(numbers)}
