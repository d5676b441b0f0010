"""What the model believes of the objective: along one parameter, or over two of them. For pictures, not for asks.

All other parameters are as in the trial that is believed to be best: a cut through the model, not an average over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from tunesvc.search.samplers.gp.fitted import PosteriorSummary, fit_posterior
from tunesvc.spec.model import Goal

LINE = 41
GRID = 31


@dataclass(frozen=True, slots=True)
class Slice1D:
    """The model along one parameter."""

    places: tuple[Any, ...]
    """The parameter's values."""
    mean: np.ndarray
    deviation: np.ndarray
    """Of the function itself, without noise."""


@dataclass(frozen=True, slots=True)
class Slice2D:
    """The model over two parameters; shapes (second, first)."""

    first: tuple[Any, ...]
    second: tuple[Any, ...]
    mean: np.ndarray
    deviation: np.ndarray


class ModelSurface:
    """A fitted model."""

    def __init__(self, summary: PosteriorSummary) -> None:
        self._summary, self._domain, self._seen = summary, summary.domain, summary.seen
        seen = summary.seen
        means = np.where(seen.is_candidate, summary.posterior.mean(seen.points), np.inf)
        self._best = seen.points[int(np.argmin(means))]
        self.number = int(seen.numbers[int(np.argmin(means))])
        """The trial through which the cuts go."""

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that the model knows."""
        return tuple(self._domain.names)

    def __len__(self) -> int:
        """How many trials it has learned from."""
        return len(self._seen)

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """A configuration as a point; shape (parameters,)."""
        return self._domain.encode(params)

    def observed(self, limit: int) -> np.ndarray:
        """Points that were observed, an even choice of at most so many; shape (points, parameters)."""
        kept = np.unique(np.linspace(0, len(self._seen) - 1, limit).round().astype(int))
        points: np.ndarray = self._seen.points[kept]
        return points

    def mixed(
        self,
        chosen: np.ndarray,
        point: np.ndarray,
        others: np.ndarray,
    ) -> np.ndarray:
        """Every one of `others` with the chosen parameters as at `point`; those that do not exist there are absent."""
        return self._domain.without_absent(np.where(chosen, point, others))

    def mean(self, points: np.ndarray) -> np.ndarray:
        """What is expected, in the objective's units; shape (points,)."""
        return self._summary.in_units(self._summary.posterior.mean(points))

    def deviation(self, point: np.ndarray) -> float:
        """Of the function itself at a point, without noise, in the objective's units."""
        return float(self._summary.predict(point[None])[1][0])

    def cut(self, name: str) -> Slice1D:
        """Along one parameter."""
        j = self._domain.names.index(name)
        line = self._line(j, LINE)
        points = np.repeat(self._best[None], len(line), axis=0)
        points[:, j] = line
        mean, deviation = self._summary.predict(points)
        return Slice1D(self._values(j, line), mean, deviation)

    def plane(self, first: str, second: str) -> Slice2D:
        """Over two parameters."""
        i, j = self._domain.names.index(first), self._domain.names.index(second)
        across, up = self._line(i, GRID), self._line(j, GRID)
        points = np.repeat(self._best[None], len(across) * len(up), axis=0)
        points[:, i], points[:, j] = (
            np.tile(across, len(up)),
            np.repeat(up, len(across)),
        )
        mean, deviation = self._summary.predict(points)
        shape = (len(up), len(across))
        return Slice2D(
            self._values(i, across),
            self._values(j, up),
            mean.reshape(shape),
            deviation.reshape(shape),
        )

    def _line(self, j: int, length: int) -> np.ndarray:
        size = self._domain.sizes[j]
        if self._domain.is_choice[j]:
            return np.arange(int(size), dtype=float)
        return np.linspace(0.0, 1.0, int(min(size, length)))

    def _values(self, j: int, line: np.ndarray) -> tuple[Any, ...]:
        points = np.repeat(self._best[None], len(line), axis=0)
        points[:, j] = line
        name = self._domain.names[j]
        return tuple(self._domain.decode(point)[name] for point in points)


def learn(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_seeds: int | None = None,
) -> ModelSurface | None:
    """Fit the model to complete trials, as `believe` does; None while there is nothing to fit it to."""
    summary = fit_posterior(trials, goal, shared_seeds)
    return ModelSurface(summary) if summary is not None and summary.seen.is_candidate.any() else None
