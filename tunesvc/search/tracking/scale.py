"""A robust scale for an objective's values, on which small is good and differences between good values count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection

from tunesvc.search.tracking.objectives import orient

WORST = 4.0
"""Where the scale ends, so that a diverged curve is bad but no outlier."""
BEST = -20.0


@dataclass(frozen=True, slots=True)
class ValueScale:
    """Monotone: 0 is the median final value, -1 the best tenth's bound.

    Positive costs that differ by factors, as losses do, are taken as logarithms. What is worse than the median is
    compressed, what diverged lies at the end. Multiplying the objective by a positive factor changes nothing, and
    neither does maximising its negative instead.
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
        """The scale of a study with these final values; NaN, infinities and penalties among them are left out.

        Args:
            is_log: whether costs that may be taken as logarithms are; None: as they are, where they differ by factors.
        """
        orientation = orient(direction)
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
        """Logarithms of how much faster than values their places on the scale grow: the density's change; finite."""
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
        """From the objective's units. NaN lies at the bad end, as infinities of either sign do: both are failures."""
        return self.of_costs(self.orientation * np.asarray(values, dtype=float))

    def of_costs(self, losses: np.ndarray, worst: float = WORST) -> np.ndarray:
        """From values whose sign is such that small is good; what is not finite lies at the `worst`."""
        failed = ~np.isfinite(losses)
        placed = np.where(failed, self.centre, losses)
        if self.is_log:
            placed = np.log(np.maximum(np.where(failed, 1.0, placed), 1e-300))
        with np.errstate(over="ignore"):
            z = (placed - self.centre) / self.unit
        z = np.where(z > 0, np.log1p(np.maximum(z, 0.0)), z)
        return np.where(failed, worst, z).clip(BEST, worst)

    def back(self, z: np.ndarray | float) -> np.ndarray:
        """To the objective's units."""
        z = np.minimum(np.asarray(z, dtype=float), 2 * WORST)
        losses = self.centre + self.unit * np.where(
            z > 0,
            np.expm1(np.maximum(z, 0.0)),
            z,
        )
        return self.orientation * (np.exp(np.minimum(losses, 700.0)) if self.is_log else losses)


_FEW = 3
"""A scale rests on so many values at least."""
_APART = 10.0
"""A gap so many times as wide as all that lies below it may set penalties apart."""
_ALIKE, _FAR = 0.1, 1e4
"""It does if values above it differ by so little of it, or if it is so many times as wide and as large."""


def _without_penalties(losses: np.ndarray) -> int:
    """How many of sorted costs lie below a gap that sets penalties apart, or diverged results; all without a gap.

    Objectives return 1e6 or 1e100 for what they cannot run. That says where not to go, and nothing about a scale.
    """
    if len(losses) <= _FEW:
        return len(losses)
    below, above = losses[_FEW - 1 : -1], losses[_FEW:]
    with np.errstate(over="ignore"):
        gaps, widths, rest = above - below, below - losses[0], losses[-1] - above
        size = np.maximum(widths, np.maximum(np.abs(below), abs(losses[0])))
        is_penalty = (rest <= _ALIKE * gaps) | (gaps > _FAR * size)
    found = np.flatnonzero((widths > 0) & (gaps > _APART * widths) & is_penalty)
    return int(found[0]) + _FEW if len(found) else len(losses)
