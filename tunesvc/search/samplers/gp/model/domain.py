"""A search space as a box: numbers as 0..1, choices as indices, and the conditions of parameters.

A point is a row with one entry per parameter. Entries of absent parameters are `ABSENT`. With
trials of earlier studies, each of these studies has one more entry: 0 for its trials, `ABSENT` for
others. With several, this study has one, too. The model treats the entries as choices, and so
learns how much values of each study say about values here, and of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from tunesvc.search.samplers.gp.model.warping import Warping
from tunesvc.search.tracking.transferred import SOURCE, source_of
from tunesvc.spec.rounding import nearest_step, snap_to_bounds

ABSENT = -1.0
"""Entry of an absent parameter, which no value has."""
_MIDDLE = 0.5


class Domain:
    """All parameters of the trials, each with its latest distribution, and their studies."""

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        sources: Sequence[str] = (),
    ) -> None:
        """Take the parameters, and the names of the earlier studies that trials are of."""
        self.sources = tuple(sources)
        """Names of the earlier studies."""
        studies = [*sources, None] if len(sources) > 1 else list(sources)
        self.distributions = dict(distributions)
        self.distributions |= {_entry(study): CategoricalDistribution([0]) for study in studies}
        self.names = list(self.distributions)
        self._kinds = list(self.distributions.values())
        self.is_source = np.array([name.startswith(SOURCE) for name in self.names], dtype=bool)
        """True for entries of studies; shape (entries of a point,)."""
        self._own = np.array([0.0 if name == _entry(None) else ABSENT for name in self.names])
        """Entries of this study's points, where `is_source`."""
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
        """In such an order that a parent's rule comes before those of its children."""

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """Return a point; values outside a range that was narrowed since lie on its border."""
        row = []
        params = {**params, _entry(None): 0}
        for name, kind in self.distributions.items():
            has_value = name in params and _is_known(params[name], kind)
            row.append(_to_unit(params[name], kind) if has_value else ABSENT)
        return np.array(row)

    def decode(self, point: np.ndarray) -> dict[str, Any]:
        """Return a value for every parameter, absent ones included."""
        pairs = zip(point, self.distributions.items(), strict=True)
        values = {name: _from_unit(place, kind) for place, (name, kind) in pairs}
        return {name: value for name, value in values.items() if not name.startswith(SOURCE)}

    def locate(self, trial: FrozenTrial) -> np.ndarray:
        """Return the point of a trial of this or an earlier study."""
        point = self.encode(trial.params)
        source = source_of(trial)
        if source is None:
            return point
        of_source = [0.0 if name == _entry(source) else ABSENT for name in self.names]
        return np.where(self.is_source, of_source, point)

    def as_own(self, points: np.ndarray) -> np.ndarray:
        """Return the points of the same configurations in this study."""
        return np.where(self.is_source, self._own, points)

    def differing(self, source: str) -> np.ndarray:
        """Return True for the entries in which an earlier study differs from this one."""
        return np.isin(self.names, [_entry(source), _entry(None)])

    def snap(self, points: np.ndarray) -> np.ndarray:
        """Return the nearest points with existing values in this study; shape (n, parameters)."""
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
        return self.without_absent(self.as_own(snapped))

    def learn_conditions(self, trials: Sequence[FrozenTrial]) -> None:
        """Find, for each parameter that some trials lack, the choice that decides on it.

        That is the first one which all trials with the parameter have, and which tells them from
        other trials that have it.
        """
        if not trials:
            return
        has = np.array([[name in trial.params for name in self.names] for trial in trials])
        points = np.stack([self.locate(trial) for trial in trials])
        found = (self._find_rule(child, has, points) for child in range(len(self)))
        counts = has.sum(axis=0)
        rules = [rule for rule in found if rule is not None]
        self._rules = sorted(rules, key=lambda rule: -counts[rule.child])

    @property
    def decides(self) -> np.ndarray:
        """True for choices on which the existence of other parameters depends."""
        found = np.zeros(len(self), dtype=bool)
        found[[rule.parent for rule in self._rules]] = True
        return found

    def _find_rule(self, child: int, has: np.ndarray, points: np.ndarray) -> _InactiveRule | None:
        with_child, without = has[:, child], ~has[:, child]
        for parent in np.flatnonzero(self.is_choice & with_child.any() & without.any()):
            on = set(points[with_child, parent])
            seen_off = set(points[without & has[:, parent], parent])
            if seen_off and ABSENT not in on and not on & seen_off:
                choices = set(map(float, range(int(self.choices[parent]))))
                return _InactiveRule(child, int(parent), [ABSENT, *(choices - on)])
        return None

    def without_absent(self, points: np.ndarray) -> np.ndarray:
        """Set inactive parameters of points to `ABSENT`, in place."""
        for rule in self._rules:
            points[np.isin(points[:, rule.parent], rule.off), rule.child] = ABSENT
        return points

    def _present(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return points with random values for absent parameters."""
        drawn, (rows, columns) = points.copy(), np.nonzero(points == ABSENT)
        unit = rng.random(len(rows))
        choices = self.choices[columns]
        drawn[rows, columns] = np.where(choices > 0, np.floor(unit * choices), unit)
        return drawn

    def random(
        self,
        count: int,
        rng: np.random.Generator,
        warping: Warping | None = None,
    ) -> np.ndarray:
        """Return points that are drawn uniformly, on warped axes if there is a warping."""
        unit = rng.random((count, len(self)))
        return self.from_unit(unit if warping is None else warping.back(unit))

    def near(
        self,
        points: np.ndarray,
        each: int,
        width: float,
        rng: np.random.Generator,
        warping: Warping | None = None,
    ) -> np.ndarray:
        """Return `each` neighbours of every point, one or two parameters changed by `width`.

        The width is a part of a parameter's warped range. A parameter that becomes active by a
        changed choice has a random value.
        """
        from_points = np.repeat(points, each, axis=0)
        out = self._present(from_points, rng)
        warping = warping or Warping.identity(len(self))
        rows = np.arange(len(out))
        for is_moved in (
            np.ones(len(out), dtype=bool),
            rng.random(len(out)) < 0.5,
        ):
            columns = self._any_active(from_points, rng)
            moved, column = rows[is_moved], columns[is_moved]
            is_choice = self.is_choice[column]
            sizes = self.sizes[column[is_choice]]
            out[moved[is_choice], column[is_choice]] = np.floor(rng.random(len(sizes)) * sizes)
            numbers, column = moved[~is_choice], column[~is_choice]
            # The smallest step is 0 for a float without step.
            smallest = 1.0 / np.maximum(self.sizes[column] - 1, 1)
            step = rng.normal(0.0, width, len(numbers))
            before, axes = out[numbers, column].clip(0.0, 1.0), warping.of(column)
            change = axes.back((axes.to(before) + step).clip(0.0, 1.0)) - before
            out[numbers, column] += np.sign(step) * np.maximum(np.abs(change), smallest)
        return self.snap(out)

    def _any_active(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one of each point's active parameters; shape (points,)."""
        columns = rng.integers(len(self), size=len(points))
        missed = np.flatnonzero(points[np.arange(len(points)), columns] == ABSENT)
        order = rng.random((len(missed), len(self))) * (points[missed] != ABSENT)
        columns[missed] = order.argmax(axis=1)
        return columns

    def from_unit(self, unit: np.ndarray) -> np.ndarray:
        """Return rows of the unit cube as points."""
        points = unit.copy()
        points[:, self.is_choice] = np.floor(unit[:, self.is_choice] * self.choices[self.is_choice])
        return self.snap(points)


@dataclass(frozen=True, slots=True)
class _InactiveRule:
    """A parameter that is inactive where another one is absent or has certain choices."""

    child: int
    parent: int
    off: list[float]


def _entry(study: str | None) -> str:
    """Return the name of the entry of a study; None for this one."""
    return SOURCE if study is None else f"{SOURCE}:{study}"


def draw_alone(seed: int, number: int, name: str, kind: BaseDistribution) -> Any:
    """Return a uniform value of one parameter of a trial, the same for the same arguments."""
    rng = np.random.default_rng([seed, number, *name.encode()])
    domain = Domain({name: kind})
    return domain.decode(domain.random(1, rng)[0])[name]


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
        return _MIDDLE
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
    if place == ABSENT:
        place = _MIDDLE
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
