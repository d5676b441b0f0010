"""Warped axes: each number's range is stretched where the function changes quickly.

A logarithmic axis that was declared linear is the common case. The warp is the distribution
function of Kumaraswamy's distribution (Snoek et al. 2014, "Input warping for Bayesian optimization
of non-stationary functions").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MIDDLE = 0.5


@dataclass(frozen=True, slots=True)
class Warping:
    """Strictly increasing maps of 0..1 onto itself, one per column: 1 - (1 - x^a)^b."""

    a: np.ndarray
    """Below 1, the low end is stretched; shape (columns,)."""
    b: np.ndarray
    """Below 1, the high end is stretched; shape (columns,)."""

    @staticmethod
    def identity(columns: int) -> Warping:
        """Return the warping that changes nothing."""
        return Warping(np.ones(columns), np.ones(columns))

    @property
    def is_identity(self) -> bool:
        """True if it changes nothing."""
        return bool((self.a == 1.0).all() and (self.b == 1.0).all())

    def of(self, columns: np.ndarray) -> Warping:
        """Return the warping of these columns, by index or mask."""
        return Warping(self.a[columns], self.b[columns])

    def to(self, places: np.ndarray) -> np.ndarray:
        """Warp places; the last axis is that of the columns."""
        out: np.ndarray = 1.0 - (1.0 - places**self.a) ** self.b
        return out

    def back(self, warped: np.ndarray) -> np.ndarray:
        """Return the places that were warped."""
        out: np.ndarray = (1.0 - (1.0 - warped) ** (1.0 / self.b)) ** (1.0 / self.a)
        return out

    def slopes(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return derivatives of warped places by log a and log b; shape of `places` each.

        They are 0 outside of 0..1.
        """
        is_place = (places > 0.0) & (places < 1.0)
        places = np.where(is_place, places, _MIDDLE)
        power = places**self.a
        rest = 1.0 - power
        is_place &= rest > 0.0
        rest = np.where(is_place, rest, 1.0)
        by_a = self.a * self.b * rest ** (self.b - 1.0) * power * np.log(places)
        by_b = -self.b * rest**self.b * np.log(rest)
        return np.where(is_place, by_a, 0.0), np.where(is_place, by_b, 0.0)
