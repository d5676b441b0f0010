"""Summary of a study, updated as trials finish: counts, best, parameters, ranks.

Answers what a scan of all trials would, at a cost that does not grow with them. Imports no sampler
and no pruner.
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

from tunesvc.search.tracking.finished import FinishedTrials, resumed_in
from tunesvc.search.tracking.objectives import is_feasible, orientations_of
from tunesvc.search.tracking.pareto import dominates
from tunesvc.search.tracking.transferred import split

_STEPS_MAX = 64
"""Most steps with cached values; a pruner asks about a few levels."""


@dataclass(frozen=True, slots=True)
class RankAt:
    """Rank of a value among those of other trials at its step. NaN counts as worst."""

    rank: int
    of: int
    """Number of trials there, this one included."""
    rank_finished: int
    """Rank among the complete trials."""
    finished: int
    best: float | None
    """Smallest loss of the others."""


@dataclass(slots=True)
class _Column:
    """Losses of finished trials at one step, sorted."""

    losses: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    """Losses of the complete trials among them."""
    nans: int = 0
    paused: dict[int, float] = field(default_factory=dict)
    """Loss by trial index, to remove it when the trial resumes."""


class StudyHistory:
    """Summary of one study. Not thread-safe."""

    def __init__(self, orientations: np.ndarray) -> None:
        self._orientations = [float(orientation) for orientation in orientations]
        self._finished_trials = FinishedTrials()
        self._trials: Sequence[FrozenTrial] = ()
        self._transferred: Sequence[FrozenTrial] = ()
        self._ended = 0
        self._tried: dict[int, list[int]] = {}
        """Hash of parameters -> indices of trials that may have them."""
        self._columns: OrderedDict[int, _Column] = OrderedDict()
        self._front: list[tuple[int, tuple[float, ...], FrozenTrial]] = []
        self.comparable = 0
        """Number of complete and feasible trials with finite values."""
        self.pruned = 0
        """Number of pruned trials, paused ones included."""

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Add finished trials. Arguments as for `FinishedTrials.update`.

        Transferred trials come first.
        """
        self._transferred, own = split(trials)
        self._trials = own
        reopened, finished = self._finished_trials.update(own, resumed)
        for index, trial in reopened.items():
            self._forget(index, trial)
        for index in finished:
            self._add(index, own[index])

    @property
    def ended(self) -> int:
        """Number of finished trials, paused and transferred ones included."""
        return self._ended + sum(trial.state.is_finished() for trial in self._transferred)

    @property
    def front(self) -> list[FrozenTrial]:
        """Comparable trials that no other dominates, by number; of one objective the first best."""
        return [trial for _, _, trial in self._front]

    def numbers_of(self, params: Mapping[str, Any]) -> Iterator[int]:
        """Yield the numbers of trials with these parameters, in any state.

        Finished ones in order.
        """
        for trial in self._transferred:
            if trial.params == params:
                yield trial.number
        unfinished = self._finished_trials.open(self._trials)
        for index in [*self._tried.get(_hash(params), ()), *unfinished]:
            if self._trials[index].params == params:
                yield self._trials[index].number

    def repeated(self, params: Mapping[str, Any], number: int) -> int | None:
        """Return a trial that the trial of this number would repeat.

        None if the parameters are new.
        """
        others = (other for other in self.numbers_of(params) if other != number)
        return next(others, None)

    def rank_at(self, number: int, step: int, value: float) -> RankAt:
        """Rank a value of an unfinished trial at a step. For one objective."""
        column = self._column(step)
        unfinished = [self._trials[index] for index in self._finished_trials.open(self._trials)]
        others = [trial for trial in unfinished if trial.number != number]
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

    def _add(self, index: int, trial: FrozenTrial) -> None:
        self._ended += 1
        self.pruned += trial.state == TrialState.PRUNED
        insort(self._tried.setdefault(_hash(trial.params), []), index)
        for step, column in self._columns.items():
            self._enter(column, index, trial, step)
        if trial.state == TrialState.COMPLETE and self._is_comparable(trial):
            self.comparable += 1
            self._extend_front(index, trial)

    def _forget(self, index: int, trial: FrozenTrial) -> None:
        """Remove a paused trial that resumes. It was not complete, so it is not in the front."""
        self._ended -= 1
        self.pruned -= trial.state == TrialState.PRUNED
        self._tried[_hash(trial.params)].remove(index)
        for column in self._columns.values():
            loss = column.paused.pop(index, None)
            if loss is not None and math.isnan(loss):
                column.nans -= 1
            elif loss is not None:
                del column.losses[bisect_left(column.losses, loss)]

    def _extend_front(self, index: int, trial: FrozenTrial) -> None:
        pairs = zip(self._orientations, trial.values, strict=True)
        losses = tuple(orientation * value for orientation, value in pairs)
        if any(dominates(known, losses) for _, known, _ in self._front):
            return
        front = [one for one in self._front if not dominates(losses, one[1])]
        insort(front, (index, losses, trial))
        self._front = front[:1] if len(losses) == 1 else front

    def _is_comparable(self, trial: FrozenTrial) -> bool:
        """Return True if the trial is a result that others are compared with."""
        values = trial.values or ()
        if len(values) != len(self._orientations) or not all(map(math.isfinite, values)):
            return False
        return is_feasible(trial)

    def _column(self, step: int) -> _Column:
        if step not in self._columns:
            column = self._columns[step] = _Column()
            # Unfinished trials are entered when they finish.
            unfinished = set(self._finished_trials.open(self._trials))
            for index, trial in enumerate(self._trials):
                if index not in unfinished:
                    self._enter(column, index, trial, step)
            if len(self._columns) > _STEPS_MAX:
                self._columns.popitem(last=False)
        self._columns.move_to_end(step)
        return self._columns[step]

    def _enter(
        self,
        column: _Column,
        index: int,
        trial: FrozenTrial,
        step: int,
    ) -> None:
        if step not in trial.intermediate_values:
            return
        loss = self._loss(trial, step)
        if self._finished_trials.is_paused(index):
            column.paused[index] = loss
        if math.isnan(loss):
            column.nans += 1
            return
        insort(column.losses, loss)
        if trial.state == TrialState.COMPLETE:
            insort(column.finished, loss)

    def _loss(self, trial: FrozenTrial, step: int) -> float:
        return self._orientations[0] * trial.intermediate_values[step]


def history_of(study: Study, trials: Sequence[FrozenTrial]) -> StudyHistory:
    """Return the study's history, updated by `trials`: all of it, transferred ones first."""
    if study not in _HISTORIES:
        _HISTORIES[study] = StudyHistory(orientations_of(study))
    _HISTORIES[study].update(trials, resumed_in(study))
    return _HISTORIES[study]


_HISTORIES: WeakKeyDictionary[Study, StudyHistory] = WeakKeyDictionary()


def _hash(params: Mapping[str, Any]) -> int:
    """Return the same hash for equal parameters."""
    try:
        return hash(frozenset(params.items()))
    except TypeError:  # plain Optuna lets choices be lists
        return hash(frozenset((name, repr(value)) for name, value in params.items()))
