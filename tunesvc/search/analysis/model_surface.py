"""The model's posterior of the objective along one parameter, or over two of them. For plots.

All other parameters are as in the trial with the best posterior mean: a slice of the model, not an
average over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from tunesvc.search.samplers.gp.model.domain import ABSENT
from tunesvc.search.samplers.gp.model.fitted import PosteriorSummary, fit_posterior
from tunesvc.spec.goals import Goal

LINE = 41
GRID = 31


@dataclass(frozen=True, slots=True)
class Slice1D:
    """Posterior along one parameter."""

    places: tuple[Any, ...]
    """Values of the parameter."""
    mean: np.ndarray
    deviation: np.ndarray
    """Deviation of the function itself, without noise."""


@dataclass(frozen=True, slots=True)
class Slice2D:
    """Posterior over two parameters; shapes (second, first)."""

    first: tuple[Any, ...]
    second: tuple[Any, ...]
    mean: np.ndarray
    deviation: np.ndarray


class ModelSurface:
    """A fitted model."""

    def __init__(self, summary: PosteriorSummary) -> None:
        self._summary = summary
        self._domain = summary.domain
        self._seen = summary.seen
        seen = summary.seen
        means = np.where(
            seen.is_candidate,
            summary.posterior.mean(seen.points),
            np.inf,
        )
        self._best = seen.points[int(np.argmin(means))]
        self.number = int(seen.numbers[int(np.argmin(means))])
        """The trial through which the slices go."""

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters of the model."""
        return tuple(self._domain.names)

    def __len__(self) -> int:
        """Return the number of trials that the model was fitted to."""
        return len(self._seen)

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """Return a configuration as a point; shape (parameters,)."""
        return self._domain.encode(params)

    def observed(self, limit: int) -> np.ndarray:
        """Return observed points, an even sample of at most so many; shape (points, parameters)."""
        even = np.linspace(0, len(self._seen) - 1, limit)
        indices = np.unique(even.round().astype(int))
        points: np.ndarray = self._seen.points[indices]
        return points

    def mixed(
        self,
        selected: np.ndarray,
        point: np.ndarray,
        others: np.ndarray,
    ) -> np.ndarray:
        """Return `others` with the selected parameters as at `point`.

        Absent ones are normalised.
        """
        return self._domain.without_absent(np.where(selected, point, others))

    def others(
        self,
        names: Sequence[str],
        count: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, float]:
        """Return rows of the unit cube, drawn evenly, in which parameters exist; see `placed`.

        Shape (rows, parameters), at most `count` rows; and the share of such rows.
        """
        columns = [self._domain.names.index(name) for name in names]
        unit = rng.random((8 * count, len(self._domain)))
        exists = (self._domain.from_unit(unit)[:, columns] != ABSENT).all(axis=1)
        return unit[exists][:count], float(exists.mean())

    def places(self, name: str, limit: int) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Return places along a parameter, evenly on its scale, and their values."""
        j = self._domain.names.index(name)
        line = self._grid(j, limit)
        return line, self._values(j, line)

    def placed(self, unit: np.ndarray, places: Mapping[str, float]) -> np.ndarray:
        """Return rows of the unit cube as points with some parameters at places, by name.

        Parameters that exist only for other choices of them become present or absent.
        """
        moved = unit.copy()
        for name, place in places.items():
            j = self._domain.names.index(name)
            choices = self._domain.choices[j]
            moved[:, j] = (place + 0.5) / choices if choices else place
        return self._domain.from_unit(moved)

    def draws(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return joint draws of the function at points, in the objective's units.

        Args:
            points: shape (points, parameters).
            normals: standard normal numbers; shape (points, draws), as the result.
        """
        mean, covariance = self._summary.posterior.joint(points)
        variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        deviations = np.sqrt(np.maximum(variances, 0.0))
        # The symmetric root changes smoothly with the points, and so do draws by equal normals.
        root = (axes * deviations) @ axes.T
        return self._summary.in_units(mean[:, None] + root @ normals)

    def mean(self, points: np.ndarray) -> np.ndarray:
        """Return posterior means in the objective's units; shape (points,)."""
        return self._summary.in_units(self._summary.posterior.mean(points))

    def deviation(self, point: np.ndarray) -> float:
        """Return the function's deviation at a point, without noise, in the objective's units."""
        return float(self._summary.predict(point[None])[1][0])

    def cut(self, name: str) -> Slice1D:
        """Return the posterior along one parameter."""
        j = self._domain.names.index(name)
        line = self._grid(j, LINE)
        points = np.repeat(self._best[None], len(line), axis=0)
        points[:, j] = line
        mean, deviation = self._summary.predict(points)
        return Slice1D(self._values(j, line), mean, deviation)

    def plane(self, first: str, second: str) -> Slice2D:
        """Return the posterior over two parameters."""
        i, j = self._domain.names.index(first), self._domain.names.index(second)
        across, up = self._grid(i, GRID), self._grid(j, GRID)
        points = np.repeat(self._best[None], len(across) * len(up), axis=0)
        points[:, i] = np.tile(across, len(up))
        points[:, j] = np.repeat(up, len(across))
        mean, deviation = self._summary.predict(points)
        shape = (len(up), len(across))
        return Slice2D(
            self._values(i, across),
            self._values(j, up),
            mean.reshape(shape),
            deviation.reshape(shape),
        )

    def _grid(self, j: int, length: int) -> np.ndarray:
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
    shared_blocks: int | None = None,
) -> ModelSurface | None:
    """Fit the model to complete trials; None while there is nothing to fit it to."""
    summary = fit_posterior(trials, goal, shared_blocks)
    if summary is None or not summary.seen.is_candidate.any():
        return None
    return ModelSurface(summary)
