"""Regions of a search space in which an acquisition is maximised."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tunesvc.search.samplers.gp.model.domain import ABSENT, Domain
from tunesvc.search.samplers.gp.model.warping import Warping


class Region(Protocol):
    """The region in which the next point may lie."""

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return points of all the region; shape (count, parameters)."""
        ...

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return `each` neighbours of every point; `width` is a part of the region's."""
        ...


class WholeSpace:
    """All of the search space."""

    def __init__(self, domain: Domain, warping: Warping) -> None:
        self._domain = domain
        self._warping = warping

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return points of which every second is drawn uniformly on warped axes."""
        half = count // 2
        uniform = self._domain.random(count - half, rng)
        return np.vstack([uniform, self._domain.random(half, rng, self._warping)])

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return `each` neighbours of every point; `width` is a part of the warped axes."""
        return self._domain.near(points, each, width, rng, self._warping)


class TrustRegion:
    """The box around some observed points (Eriksson et al. 2019, "Scalable global optimization via
    local Bayesian optimization")."""

    def __init__(self, domain: Domain, points: np.ndarray) -> None:
        self._domain = domain
        self._points = points
        present = np.where(points == ABSENT, np.nan, points)
        is_known = ~np.isnan(present).all(axis=0)
        self._low, self._high = np.zeros(len(domain)), np.ones(len(domain))
        self._low[is_known] = np.nanmin(present[:, is_known], axis=0)
        self._high[is_known] = np.nanmax(present[:, is_known], axis=0)

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return observed points with other numbers."""
        points = self._points[rng.integers(len(self._points), size=count)]
        unit = rng.random(points.shape)
        numbers = self._low + (self._high - self._low) * unit
        return self._domain.snap(np.where(self._domain.is_choice, points, numbers))

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return `each` neighbours of every point; `width` is a part of the box's mean width."""
        is_number = ~self._domain.is_choice
        widths = (self._high - self._low)[is_number]
        share = float(widths.mean()) if len(widths) else 1.0
        found = self._domain.near(points, each, width * share, rng)
        is_fixed = self._domain.is_choice | (found == ABSENT)
        return self._domain.snap(np.where(is_fixed, found, found.clip(self._low, self._high)))
