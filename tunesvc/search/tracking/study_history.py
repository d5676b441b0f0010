"""What a study has come to, kept as its trials end: how many, the best of them, what was tried, and values at steps.

Everything that a look at all trials would tell, at a cost that does not grow with them. Knows no sampler and no pruner.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.tracking.finished import FinishedTrials, resumed_in, split
from tunesvc.search.tracking.objectives import is_feasible, orientations_of
from tunesvc.search.tracking.pareto import dominates

_STEPS_MAX = 64
"""Steps at which values are remembered: a pruner asks about a few levels."""


@dataclass(frozen=True, slots=True)
class RankAt:
    """How a value stands beside those of the other trials at its step; small costs are good, NaN is no value."""

    rank: int
    of: int
    """All trials there, itself included."""
    rank_finished: int
    """What its rank would be among the finished trials."""
    finished: int
    best: float | None
    """The least cost of the others."""


@dataclass(slots=True)
class _Column:
    """The costs of ended trials at one step, in order."""

    losses: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    """Of these, those of complete trials."""
    nans: int = 0
    paused: dict[int, float] = field(default_factory=dict)
    """By place: to be taken out when the trial goes on."""


class StudyHistory:
    """One study's. Not thread-safe."""

    def __init__(self, orientations: np.ndarray) -> None:
        self._orientations = [float(orientation) for orientation in orientations]
        self._settled = FinishedTrials()
        self._trials: Sequence[FrozenTrial] = ()
        self._transferred: Sequence[FrozenTrial] = ()
        self._ended = 0
        self._tried: dict[int, list[int]] = {}
        """Hash of parameters -> places of the trials that may have them; they themselves are in the trials."""
        self._columns: OrderedDict[int, _Column] = OrderedDict()
        self._front: list[tuple[int, tuple[float, ...], FrozenTrial]] = []
        self.comparable = 0
        """How many complete and feasible trials have finite values."""
        self.pruned = 0
        """How many are pruned, for good or for now."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Add what has finished; `trials` and `gone_on` as in `FinishedTrials.look`, transferred trials first."""
        self._transferred, own = split(trials)
        self._trials = own
        again, over = self._settled.look(own, resumed)
        for place, trial in again.items():
            self._forget(place, trial)
        for place in over:
            self._take_in(place, own[place])

    @property
    def ended(self) -> int:
        """How many trials are over, paused and lent ones included."""
        return self._ended + sum(trial.state.is_finished() for trial in self._transferred)

    @property
    def front(self) -> list[FrozenTrial]:
        """The comparable trials that no other dominates, in order of their numbers; of one objective the first best."""
        return [trial for _, _, trial in self._front]

    def numbers_of(self, params: Mapping[str, Any]) -> Iterator[int]:
        """Numbers of the trials with just these parameters, whatever became of them; ended ones in order."""
        yield from (trial.number for trial in self._transferred if trial.params == params)
        places = [
            *self._tried.get(_hash(params), ()),
            *self._settled.open(self._trials),
        ]
        yield from (trial.number for trial in map(self._trials.__getitem__, places) if trial.params == params)

    def repeated(self, params: Mapping[str, Any], number: int) -> int | None:
        """A trial that the one of this number repeats with these parameters; None when they are new."""
        return next(
            (other for other in self.numbers_of(params) if other != number),
            None,
        )

    def rank_at(self, number: int, step: int, value: float) -> RankAt:
        """How a value of the trial of this number, which is not over, stands at a step. For one objective."""
        column = self._column(step)
        others = [self._trials[p] for p in self._settled.open(self._trials) if self._trials[p].number != number]
        running = [self._loss(other, step) for other in others if step in other.intermediate_values]
        known = [loss for loss in running if not math.isnan(loss)]
        loss = math.inf if math.isnan(value) else self._orientations[0] * value
        return RankAt(
            rank=1 + bisect_left(column.losses, loss) + sum(other < loss for other in known),
            of=1 + len(column.losses) + column.nans + len(running),
            rank_finished=1 + bisect_left(column.finished, loss),
            finished=len(column.finished),
            best=min([*column.losses[:1], *known], default=None),
        )

    def _take_in(self, place: int, trial: FrozenTrial) -> None:
        self._ended += 1
        self.pruned += trial.state == TrialState.PRUNED
        insort(self._tried.setdefault(_hash(trial.params), []), place)
        for step, column in self._columns.items():
            self._enter(column, place, trial, step)
        if trial.state == TrialState.COMPLETE and self._is_comparable(trial):
            self.comparable += 1
            self._extend_front(place, trial)

    def _forget(self, place: int, trial: FrozenTrial) -> None:
        """A paused trial goes on. It was not complete, so it is none of the comparable ones."""
        self._ended -= 1
        self.pruned -= trial.state == TrialState.PRUNED
        self._tried[_hash(trial.params)].remove(place)
        for column in self._columns.values():
            loss = column.paused.pop(place, None)
            if loss is not None and math.isnan(loss):
                column.nans -= 1
            elif loss is not None:
                del column.losses[bisect_left(column.losses, loss)]

    def _extend_front(self, place: int, trial: FrozenTrial) -> None:
        losses = tuple(orientation * value for orientation, value in zip(self._orientations, trial.values, strict=True))
        if any(dominates(known, losses) for _, known, _ in self._front):
            return
        front = [one for one in self._front if not dominates(losses, one[1])]
        insort(front, (place, losses, trial))
        self._front = front[:1] if len(losses) == 1 else front

    def _is_comparable(self, trial: FrozenTrial) -> bool:
        """Whether it is a result to be measured against."""
        values = trial.values or ()
        if len(values) != len(self._orientations) or not all(map(math.isfinite, values)):
            return False
        return is_feasible(trial)

    def _column(self, step: int) -> _Column:
        if step not in self._columns:
            column = self._columns[step] = _Column()
            still = set(self._settled.open(self._trials))  # the only ones that may not be entered yet
            for place, trial in enumerate(self._trials):
                if place not in still:
                    self._enter(column, place, trial, step)
            if len(self._columns) > _STEPS_MAX:
                self._columns.popitem(last=False)
        self._columns.move_to_end(step)
        return self._columns[step]

    def _enter(
        self,
        column: _Column,
        place: int,
        trial: FrozenTrial,
        step: int,
    ) -> None:
        if step not in trial.intermediate_values:
            return
        loss = self._loss(trial, step)
        if self._settled.is_paused(place):
            column.paused[place] = loss
        if math.isnan(loss):
            column.nans += 1
            return
        insort(column.losses, loss)
        if trial.state == TrialState.COMPLETE:
            insort(column.finished, loss)

    def _loss(self, trial: FrozenTrial, step: int) -> float:
        return self._orientations[0] * trial.intermediate_values[step]


def history_of(study: Study, trials: Sequence[FrozenTrial]) -> StudyHistory:
    """The study's history; `trials` are all of it as of now, lent ones before its own."""
    if study not in _HISTORIES:
        _HISTORIES[study] = StudyHistory(orientations_of(study))
    _HISTORIES[study].update(trials, resumed_in(study))
    return _HISTORIES[study]


_HISTORIES: WeakKeyDictionary[Study, StudyHistory] = WeakKeyDictionary()


def _hash(params: Mapping[str, Any]) -> int:
    """Alike for equal parameters."""
    try:
        return hash(frozenset(params.items()))
    except TypeError:  # plain Optuna lets choices be lists
        return hash(frozenset((name, repr(value)) for name, value in params.items()))
