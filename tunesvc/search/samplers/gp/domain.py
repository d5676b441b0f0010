"""A search space as a box: numbers as 0..1, choices as indices, and the conditions of parameters.

A point is a row with one entry per parameter. Entries of absent parameters are `ABSENT`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from tunesvc.spec.rounding import nearest_step, snap_to_bounds

ABSENT = 0.5
"""Entry of an absent parameter: all trials without it agree in it."""


class Domain:
    """All parameters of the trials, each with its latest distribution."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(distributions)
        self.names = list(distributions)
        self._kinds = list(distributions.values())
        self.is_choice = np.array(
            [isinstance(kind, CategoricalDistribution) for kind in self._kinds],
            dtype=bool,
        )
        self.sizes = np.array([_size(kind) for kind in self._kinds])
        """Number of values of each parameter; infinite for a float without step."""
        self.choices = np.where(
            self.is_choice,
            np.where(np.isfinite(self.sizes), self.sizes, 0),
            0,
        ).astype(int)
        """Number of choices of each parameter; 0 for a number."""
        self._rules: list[_InactiveRule] = []

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """Return a point; values outside a range that was narrowed since lie on its border."""
        row = []
        for name, kind in self.distributions.items():
            has_value = name in params and _is_known(params[name], kind)
            row.append(_to_unit(params[name], kind) if has_value else ABSENT)
        return np.array(row)

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """Return a value for every parameter, absent ones included."""
        pairs = zip(point, self.distributions.items(), strict=True)
        return {name: _from_unit(place, kind) for place, (name, kind) in pairs}

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Return the nearest points with existing values; shape (n, parameters)."""
        steps = np.maximum(self.sizes - 1, 1)
        is_stepped = ~self.is_choice & np.isfinite(self.sizes)
        snapped = points.clip(0.0, None)
        snapped[:, ~self.is_choice] = snapped[:, ~self.is_choice].clip(max=1.0)
        for j in np.flatnonzero(is_stepped):
            kind = self._kinds[j]
            if kind.log:  # type: ignore[attr-defined]  # equal steps of value differ in logarithm
                values = [_from_unit(place, kind) for place in snapped[:, j]]
                snapped[:, j] = [_to_unit(value, kind) for value in values]
            else:
                snapped[:, j] = np.round(snapped[:, j] * steps[j]) / steps[j]
        return self.without_absent(snapped)

    def learn_conditions(self, trials: Sequence[FrozenTrial]) -> None:
        """Find, for each parameter that some trials lack, the choice that decides on it."""
        self._rules = []
        for j, name in enumerate(self.names):
            has = np.array(
                [name in trial.params for trial in trials],
                dtype=bool,
            )
            if has.all() or not has.any():
                continue
            for parent, kind in enumerate(self._kinds):
                if parent == j or not self.is_choice[parent]:
                    continue
                places = np.array([self.encode(trial.params)[parent] for trial in trials])
                known = np.array([self.names[parent] in trial.params for trial in trials])
                on = set(places[has & known])
                if on and not on & set(places[~has & known]):
                    off = set(range(int(_size(kind)))) - {int(place) for place in on}
                    self._rules.append(_InactiveRule(j, parent, off))
                    break

    def without_absent(self, points: np.ndarray) -> np.ndarray:
        """Set inactive parameters of points to `ABSENT`, in place."""
        for rule in self._rules:
            points[np.isin(points[:, rule.parent], list(rule.off)), rule.child] = ABSENT
        return points

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return uniformly drawn points."""
        return self.from_unit(rng.random((count, len(self))))

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return `each` neighbours of every point, one or two parameters changed by `width`."""
        out = np.repeat(points, each, axis=0)
        rows = np.arange(len(out))
        for is_moved in (
            np.ones(len(out), dtype=bool),
            rng.random(len(out)) < 0.5,
        ):
            columns = rng.integers(len(self), size=len(out))
            moved, column = rows[is_moved], columns[is_moved]
            is_choice = self.is_choice[column]
            sizes = self.sizes[column[is_choice]]
            out[moved[is_choice], column[is_choice]] = np.floor(rng.random(len(sizes)) * sizes)
            numbers, column = moved[~is_choice], column[~is_choice]
            # The smallest step is 0 for a float without step.
            smallest = 1.0 / np.maximum(self.sizes[column] - 1, 1)
            step = rng.normal(0.0, width, len(numbers))
            out[numbers, column] += np.sign(step) * np.maximum(
                np.abs(step),
                smallest,
            )
        return self.snap(out)

    def from_unit(self, unit: np.ndarray) -> np.ndarray:
        """Return rows of the unit cube as points."""
        points = unit.copy()
        points[:, self.is_choice] = np.floor(unit[:, self.is_choice] * self.choices[self.is_choice])
        return self.snap(points)


class _InactiveRule:
    """A parameter that is inactive where another one has certain choices."""

    def __init__(self, child: int, parent: int, off: set[int]) -> None:
        self.child, self.parent, self.off = child, parent, off


def _size(kind: BaseDistribution) -> float:
    if isinstance(kind, CategoricalDistribution):
        return len(kind.choices)
    if isinstance(kind, IntDistribution):
        return (kind.high - kind.low) // kind.step + 1
    if isinstance(kind, FloatDistribution) and kind.step is not None:
        return round((kind.high - kind.low) / kind.step) + 1
    return np.inf


def _is_known(value: Any, kind: BaseDistribution) -> bool:
    if isinstance(kind, CategoricalDistribution):
        try:
            kind.to_internal_repr(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float))


def _to_unit(value: Any, kind: BaseDistribution) -> float:
    if isinstance(kind, CategoricalDistribution):
        return float(kind.to_internal_repr(value))
    low, high = float(kind.low), float(kind.high)  # type: ignore[attr-defined]
    if high <= low:
        return ABSENT
    # The same numbers as those of `snap`.
    if isinstance(kind, FloatDistribution) and kind.step is not None:
        return float(
            min(
                max(round((value - low) / kind.step) / (_size(kind) - 1), 0.0),
                1.0,
            )
        )
    if kind.log:  # type: ignore[attr-defined]
        value = math.log(max(value, low))
        low = math.log(low)
        high = math.log(high)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def _from_unit(place: float, kind: BaseDistribution) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(min(max(place, 0), len(kind.choices) - 1))]
    low, high = float(kind.low), float(kind.high)  # type: ignore[attr-defined]
    if kind.log:  # type: ignore[attr-defined]
        value = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    else:
        value = low + place * (high - low)
    if isinstance(kind, IntDistribution):
        return int(
            min(
                max(
                    kind.low + round((value - low) / kind.step) * kind.step,
                    kind.low,
                ),
                kind.high,
            )
        )
    if isinstance(kind, FloatDistribution) and kind.step is not None:
        value = nearest_step(value, low, kind.step)
    return snap_to_bounds(min(max(float(value), low), high), low, high)
