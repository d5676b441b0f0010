"""A search space as a box: numbers as 0..1, choices as indices, and which of them matter when.

A point is a row with one entry per parameter. Entries of parameters that a trial does not have are `ABSENT`.
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
"""Where a parameter that a trial does not have is put: all such trials agree in it."""


class Domain:
    """The union of the parameters that trials have, each with its latest distribution."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(distributions)
        self.names = list(distributions)
        self._kinds = list(distributions.values())
        self.is_choice = np.array(
            [isinstance(kind, CategoricalDistribution) for kind in self._kinds],
            dtype=bool,
        )
        self.sizes = np.array([_size(kind) for kind in self._kinds])
        """How many different values each parameter has; infinite for a float without step."""
        self.choices = np.where(
            self.is_choice,
            np.where(np.isfinite(self.sizes), self.sizes, 0),
            0,
        ).astype(int)
        """How many choices each parameter has; 0 for a number."""
        self._rules: list[_InactiveRule] = []

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """A point; values outside a range that was narrowed since lie on its border."""
        row = [
            _place(params[name], kind) if name in params and _is_known(params[name], kind) else ABSENT
            for name, kind in self.distributions.items()
        ]
        return np.array(row)

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """A value for every parameter, those included that do not matter here."""
        return {
            name: _value(place, kind)
            for place, (name, kind) in zip(
                point,
                self.distributions.items(),
                strict=True,
            )
        }

    def snap(self, points: np.ndarray) -> np.ndarray:
        """The nearest points whose values exist; shape (n, parameters), as all of these."""
        steps = np.maximum(self.sizes - 1, 1)
        is_stepped = ~self.is_choice & np.isfinite(self.sizes)
        snapped = points.clip(0.0, None)
        snapped[:, ~self.is_choice] = snapped[:, ~self.is_choice].clip(max=1.0)
        for j in np.flatnonzero(is_stepped):
            kind = self._kinds[j]
            if kind.log:  # type: ignore[attr-defined]  # steps that are equal in value are not in the logarithm
                snapped[:, j] = [_place(_value(place, kind), kind) for place in snapped[:, j]]
            else:
                snapped[:, j] = np.round(snapped[:, j] * steps[j]) / steps[j]
        return self.without_absent(snapped)

    def learn_conditions(self, trials: Sequence[FrozenTrial]) -> None:
        """Find for each parameter that some trials lack the choice that decides over it, if one does."""
        self._rules = []
        for j, name in enumerate(self.names):
            has = np.array([name in trial.params for trial in trials], dtype=bool)
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
        """The same points with what does not matter at them put where trials that lack it are."""
        for rule in self._rules:
            points[np.isin(points[:, rule.parent], list(rule.off)), rule.child] = ABSENT
        return points

    def random(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Points drawn evenly."""
        return self.from_unit(rng.random((count, len(self))))

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """`each` neighbours of every point, one or two of whose parameters differ; `width` of a number's step."""
        out = np.repeat(points, each, axis=0)
        rows = np.arange(len(out))
        for is_moved in (np.ones(len(out), dtype=bool), rng.random(len(out)) < 0.5):
            columns = rng.integers(len(self), size=len(out))
            moved, column = rows[is_moved], columns[is_moved]
            is_choice = self.is_choice[column]
            sizes = self.sizes[column[is_choice]]
            out[moved[is_choice], column[is_choice]] = np.floor(rng.random(len(sizes)) * sizes)
            numbers, column = moved[~is_choice], column[~is_choice]
            smallest = 1.0 / np.maximum(
                self.sizes[column] - 1,
                1,
            )  # 0 for a float without step
            step = rng.normal(0.0, width, len(numbers))
            out[numbers, column] += np.sign(step) * np.maximum(np.abs(step), smallest)
        return self.snap(out)

    def from_unit(self, unit: np.ndarray) -> np.ndarray:
        """Rows of the unit cube as points."""
        points = unit.copy()
        points[:, self.is_choice] = np.floor(unit[:, self.is_choice] * self.choices[self.is_choice])
        return self.snap(points)


class _InactiveRule:
    """A parameter that does not matter where another one has certain choices."""

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


def _place(value: Any, kind: BaseDistribution) -> float:
    if isinstance(kind, CategoricalDistribution):
        return float(kind.to_internal_repr(value))
    low, high = float(kind.low), float(kind.high)  # type: ignore[attr-defined]
    if high <= low:
        return ABSENT
    if isinstance(kind, FloatDistribution) and kind.step is not None:  # the same numbers as those of `snap`
        return float(min(max(round((value - low) / kind.step) / (_size(kind) - 1), 0.0), 1.0))
    if kind.log:  # type: ignore[attr-defined]
        value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
    return float(min(max((value - low) / (high - low), 0.0), 1.0))


def _value(place: float, kind: BaseDistribution) -> Any:
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
                max(kind.low + round((value - low) / kind.step) * kind.step, kind.low),
                kind.high,
            )
        )
    if isinstance(kind, FloatDistribution) and kind.step is not None:
        value = nearest_step(value, low, kind.step)
    return snap_to_bounds(min(max(float(value), low), high), low, high)
