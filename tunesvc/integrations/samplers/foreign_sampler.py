"""Base of samplers of other libraries: axes as such a library knows them, and trials as losses.

A proposal follows from the study's trials, its number and the seed, so that it survives a resume:
each ask shows the library all trials. Parameters with one value are not searched.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from tunesvc.util.optuna_internals import holds

Point = Mapping[str, float]
"""A configuration as a library knows it: a number for each axis; an index for a choice or step."""
Conditions = Mapping[str, Mapping[str, Sequence[Any]]]
"""Conditional parameter -> its parents -> values of the parent with which it exists."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter: a range of floats or whole numbers, or the indices of choices."""

    distribution: Any
    kind: Literal["float", "int", "choice"]
    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, distribution: Any) -> Axis:
        """Return the axis of a distribution; one with steps becomes their indices."""
        if isinstance(distribution, CategoricalDistribution):
            return cls(distribution, "choice", 0, len(distribution.choices) - 1)
        low, high, log = distribution.low, distribution.high, distribution.log
        is_int = isinstance(distribution, IntDistribution)
        if distribution.step is None or (is_int and distribution.step == 1):
            return cls(distribution, "int" if is_int else "float", low, high, log)
        return cls(distribution, "int", 0, round((high - low) / distribution.step))

    def number(self, value: Any) -> float:
        """Return the number of a parameter's value."""
        if self.kind == "choice":
            return int(self.distribution.to_internal_repr(value))
        number: float = value
        if self._is_stepped:
            number = round((value - self.distribution.low) / self.distribution.step)
        return number

    def value(self, number: float) -> Any:
        """Return the parameter's value of a number."""
        if self.kind == "choice":
            return self.distribution.to_external_repr(int(number))
        if self._is_stepped:
            return self.distribution.low + round(number) * self.distribution.step
        inside = min(max(number, self.low), self.high)
        return round(inside) if self.kind == "int" else float(inside)

    def at(self, share: float) -> float:
        """Return the number at a share of the range, from 0 to 1."""
        if self.kind != "float":
            below, above = (self.low - 0.5, self.high + 0.5)
            below, above = (max(below, 0.5), above) if self.log else (below, above)
            found = round(_between(below, above, share, self.log))
            return min(max(found, int(self.low)), int(self.high))
        return _between(self.low, self.high, share, self.log)

    @property
    def _is_stepped(self) -> bool:
        return self.kind == "int" and getattr(self.distribution, "step", 1) != 1


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """A trial as a library is shown it."""

    number: int
    point: Point
    """Without the axes that it lacks."""
    losses: tuple[float, ...] | None
    """Values to minimize; None while it runs. An infeasible trial has the worst ones so far."""


class ForeignSampler(BaseSampler):
    """Asks another library for points; parameters that it does not search are drawn at random.

    Complete trials count with their values, and pruned ones with their last value. Trials that kept
    not all constraints, or failed by their parameters, count with the worst value so far; other
    failures are left out.
    """

    def __init__(self, search_space: Mapping[str, BaseDistribution], seed: int | None) -> None:
        """Take the study's distributions by name."""
        self._axes = {
            name: Axis.of(kind) for name, kind in search_space.items() if not kind.single()
        }
        if not self._axes:
            raise ValueError("the study declares no parameter with more than one value")
        self._random = RandomSampler(seed)
        entropy = np.random.SeedSequence(seed)
        self._seed = int(entropy.generate_state(1)[0])

    @abstractmethod
    def _propose(self, study: Study, trial: FrozenTrial, known: Sequence[KnownTrial]) -> Point:
        """Return the next point; axes may be missing."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters with more than one value."""
        return {name: axis.distribution for name, axis in self._axes.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the library's proposal."""
        point = self._propose(study, trial, list(self._known(study, trial)))
        return {name: self._axes[name].value(number) for name, number in point.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Draw a parameter at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw from other random numbers."""
        self._random.reseed_rng()
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])

    def _seed_of(self, trial: FrozenTrial) -> int:
        """Return the seed of a trial, below 2**31."""
        return int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]) >> 1

    def _spread(self, number: int) -> Point:
        """Return a point of a Sobol sequence over all axes."""
        sequence = qmc.Sobol(len(self._axes), rng=self._seed)
        if number:
            sequence.fast_forward(number)
        (shares,) = sequence.random(1)
        pairs = zip(self._axes.items(), shares, strict=True)
        return {name: axis.at(float(share)) for (name, axis), share in pairs}

    def _complete(self, point: Point) -> Point:
        """Return a point with the middle of each axis that it lacks."""
        return {name: point.get(name, axis.at(0.5)) for name, axis in self._axes.items()}

    def _known(self, study: Study, current: FrozenTrial) -> Iterator[KnownTrial]:
        found = [
            (trial, KnownTrial(trial.number, point, _losses(study, trial)))
            for trial, point in self._tried(study, current)
        ]
        feasible = [one.losses for trial, one in found if one.losses and not _is_infeasible(trial)]
        worst = tuple(map(max, zip(*feasible, strict=True)))
        for trial, one in found:
            if trial.state == TrialState.RUNNING or (one.losses and not _is_infeasible(trial)):
                yield one
            elif worst and _is_infeasible(trial):
                yield replace(one, losses=worst)

    def _tried(self, study: Study, current: FrozenTrial) -> Iterator[tuple[FrozenTrial, Point]]:
        """Yield the study's other trials that are in the present ranges, failed ones included."""
        for trial in study.get_trials(deepcopy=False):
            if trial.number != current.number and (point := self._point(trial.params)):
                yield trial, point

    def _point(self, params: Mapping[str, Any]) -> Point | None:
        """Return a trial's numbers; None if it has none, or one from another range."""
        axes = {name: axis for name, axis in self._axes.items() if name in params}
        if not all(holds(axis.distribution, params[name]) for name, axis in axes.items()):
            return None
        return {name: axis.number(params[name]) for name, axis in axes.items()}


def _losses(study: Study, trial: FrozenTrial) -> tuple[float, ...] | None:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not trial.values:
        return None
    signs = [1 if one == StudyDirection.MINIMIZE else -1 for one in study.directions]
    losses = [sign * value for sign, value in zip(signs, trial.values, strict=True)]
    return tuple(losses) if all(map(math.isfinite, losses)) else None


def _is_infeasible(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and any(v > 0 for v in trial.constraints.values())


def _between(low: float, high: float, share: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return low + share * (high - low)
