"""Measurements of configurations that were measured several times: the plainest sign of noise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

ALIKE = 3e-3
"""Values with variance 1 that are closer than this differ by rounding only."""
_AGREEING_MIN = 2
"""Fewest agreeing repeats that prove that there is no noise."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Measurements of configurations that were measured several times."""

    freedom: int
    """Number of measurements beyond the first of each configuration."""
    variance: float
    """Pooled variance within configurations; 0 without repeats."""
    largest: float
    """Largest difference of two measurements of one configuration."""

    @staticmethod
    def of(points: np.ndarray, values: np.ndarray) -> Repeats:
        """Group values, shape (n,), by equal points, shape (n, parameters)."""
        groups: dict[bytes, list[float]] = defaultdict(list)
        for point, value in zip(points, values, strict=True):
            groups[point.tobytes()].append(float(value))
        several = [np.array(group) for group in groups.values() if len(group) > 1]
        freedom = sum(len(group) - 1 for group in several)
        squares = sum(float(((group - group.mean()) ** 2).sum()) for group in several)
        largest = max((float(np.ptp(group)) for group in several), default=0.0)
        return Repeats(freedom, squares / freedom if freedom else 0.0, largest)

    @property
    def agree(self) -> bool | None:
        """True if no two measurements of a configuration differ; None if that may be chance.

        One repeat may agree by chance where values are coarse, such as accuracies.
        """
        if self.largest > ALIKE:
            return False
        return True if self.freedom >= _AGREEING_MIN else None
