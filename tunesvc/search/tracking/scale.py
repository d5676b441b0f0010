"""A robust scale for an objective, on which differences of good values count most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection

from tunesvc.space.directions import goal_of
from tunesvc.spec.goals import orient

WORST = 4.0
"""End of the scale, so that a diverged curve is bad but no outlier."""
BEST = -20.0


@dataclass(frozen=True, slots=True)
class ValueScale:
    """A monotone scale: 0 is the median final value, -1 the bound of the best tenth.

    Positive losses that differ by factors are scaled by their logarithms. Values worse than the
    median are compressed; diverged ones lie at the end. Multiplying the objective by a positive
    factor changes nothing, and neither does maximising its negative.
    """

    orientation: float
    is_log: bool
    centre: float
    unit: float

    @staticmethod
    def of(
        finals: Sequence[float] | np.ndarray,
        direction: StudyDirection,
        *,
        is_log: bool | None = None,
    ) -> ValueScale:
        """Return the scale for these final values, without NaN, infinities and penalties.

        Args:
            is_log: False to never use logarithms; None to use them if the losses suggest it.
        """
        orientation = orient(goal_of(direction))
        losses = orientation * np.asarray(finals, dtype=float)
        losses = np.sort(losses[np.isfinite(losses)])
        losses = losses[: _without_penalties(losses)]
        if not len(losses):
            return ValueScale(orientation, False, 0.0, 1.0)
        low, centre, high = np.quantile(losses, [0.1, 0.5, 0.9])
        is_log = bool(losses[0] > 0 and high > 3 * low) and is_log is not False
        if is_log:
            low, centre, high = np.log([low, centre, high])
        unit = max(centre - low, 0.1 * (high - centre), 1e-9 * abs(centre)) or 1.0
        return ValueScale(orientation, is_log, float(centre), float(unit))

    def log_slopes(self, values: np.ndarray) -> np.ndarray:
        """Return the logarithms of the scale's slope at these values; finite."""
        losses = self.orientation * np.asarray(values, dtype=float)
        losses = np.where(
            np.isfinite(losses),
            losses,
            np.exp(self.centre) if self.is_log else self.centre,
        )
        placed = np.log(np.maximum(losses, 1e-300)) if self.is_log else losses
        above = ((placed - self.centre) / self.unit).clip(0.0, np.expm1(WORST))
        slopes: np.ndarray = -np.log(self.unit) - np.log1p(above) - (placed if self.is_log else 0.0)
        return slopes

    def to(self, values: np.ndarray | float) -> np.ndarray:
        """Scale values. NaN and infinities of either sign are failures, and lie at the bad end."""
        return self.of_losses(self.orientation * np.asarray(values, dtype=float))

    def of_losses(self, losses: np.ndarray, worst: float = WORST) -> np.ndarray:
        """Scale losses; those that are not finite lie at `worst`."""
        failed = ~np.isfinite(losses)
        placed = np.where(failed, self.centre, losses)
        if self.is_log:
            placed = np.log(np.maximum(np.where(failed, 1.0, placed), 1e-300))
        with np.errstate(over="ignore"):
            z = (placed - self.centre) / self.unit
        z = np.where(z > 0, np.log1p(np.maximum(z, 0.0)), z)
        return np.where(failed, worst, z).clip(BEST, worst)

    def back(self, z: np.ndarray | float) -> np.ndarray:
        """Return values in the objective's units."""
        z = np.minimum(np.asarray(z, dtype=float), 2 * WORST)
        losses = self.centre + self.unit * np.where(
            z > 0,
            np.expm1(np.maximum(z, 0.0)),
            z,
        )
        return self.orientation * (np.exp(np.minimum(losses, 700.0)) if self.is_log else losses)


_FEW = 3
"""Fewest values that a scale rests on."""
_APART = 10.0
"""A gap must be this many times as wide as everything below it to separate penalties."""
_ALIKE, _FAR = 0.1, 1e4
"""It does so if the values above it differ by at most this share of it, or if it is this many times
as wide and as large as the values below."""


def _without_penalties(losses: np.ndarray) -> int:
    """Return how many of the sorted losses lie below a gap that separates penalties.

    Objectives return 1e6 or 1e100 for configurations that cannot run. That tells where not to
    search, but nothing about a scale.
    """
    if len(losses) <= _FEW:
        return len(losses)
    below, above = losses[_FEW - 1 : -1], losses[_FEW:]
    with np.errstate(over="ignore"):
        gaps = above - below
        widths = below - losses[0]
        rest = losses[-1] - above
        size = np.maximum(widths, np.maximum(np.abs(below), abs(losses[0])))
        is_penalty = (rest <= _ALIKE * gaps) | (gaps > _FAR * size)
        is_apart = (widths > 0) & (gaps > _APART * widths)
    found = np.flatnonzero(is_apart & is_penalty)
    return int(found[0]) + _FEW if len(found) else len(losses)
