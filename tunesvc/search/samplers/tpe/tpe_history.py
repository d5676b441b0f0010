"""Finished trials of a study, ranked as they finish, and a bounded split into good and bad ones.

A sampler that reads every trial at every ask becomes slower with each of them. `TPEHistory` reads a
trial once, when it has finished; a split then costs the same after 10,000 trials as after 500.
Imports no sampler.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.samplers.tpe.parzen import LATEST
from tunesvc.search.study_storage import shown_as_infeasible
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.space.directions import orient_each
from tunesvc.util.optuna_internals import non_domination_ranks, spread_subset

GOOD_MAX = 25
"""Most good trials of a study with one objective; Optuna's number."""
_GOLDEN = (math.sqrt(5) - 1) / 2

Array = npt.NDArray[np.float64]
Space = dict[str, BaseDistribution]
Rank = tuple[int, float, float, int]


@dataclass(frozen=True, slots=True)
class Observation:
    """A trial as data of the model."""

    number: int
    point: Mapping[str, float]
    """Parameters in Optuna's internal representation."""
    values: tuple[float, ...] | None = None


@dataclass(slots=True)
class TrialColumns(Sequence[Observation]):
    """Trials in order of their numbers, with their parameters as cached columns.

    Do not change it.
    """

    observations: Sequence[Observation]
    numbers: npt.NDArray[np.int_] = field(init=False, compare=False)
    """Numbers of the trials."""
    _columns: dict[str, Array] = field(
        init=False,
        compare=False,
        repr=False,
        default_factory=dict,
    )
    _tables: dict[tuple[str, ...], tuple[Array, npt.NDArray[np.int_]]] = field(
        init=False,
        compare=False,
        repr=False,
        default_factory=dict,
    )

    def __post_init__(self) -> None:
        self.numbers = np.array(
            [one.number for one in self.observations],
            dtype=int,
        )

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, place: Any) -> Any:
        return self.observations[place]

    def column(self, name: str) -> Array:
        """Return a parameter of each trial in Optuna's internal representation.

        NaN where absent.
        """
        if name not in self._columns:
            values = [one.point.get(name, math.nan) for one in self.observations]
            self._columns[name] = np.array(values)
        return self._columns[name]

    def table(self, names: Iterable[str]) -> tuple[Array, npt.NDArray[np.int_]]:
        """Return the points that have all of these parameters, and their trials' numbers."""
        key = tuple(names)
        if key not in self._tables:
            points = np.stack([self.column(name) for name in key], axis=1)
            complete = ~np.isnan(points).any(axis=1)
            self._tables[key] = points[complete], self.numbers[complete]
        return self._tables[key]


@dataclass(frozen=True, slots=True)
class Split:
    """Good and bad trials of a study."""

    good: TrialColumns
    bad: TrialColumns
    finished: int
    """Number of trials that were split."""


class TPEHistory:
    """Ranked trials of one study. Not thread-safe.

    Args:
        history: most trials in a split, at least 100. It always has the good ones.
    """

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        history: int,
    ) -> None:
        self._orientations = orient_each(directions)
        self._history = history
        self._read_count = 0
        self._unfinished: set[int] = set()
        self._paused: dict[int, tuple[int, FrozenTrial]] = {}
        """Number -> position, and the trial as it was read; it is read again after it resumed."""
        self._resumed_read = 0
        self._observed: dict[int, Observation] = {}
        self._numbers: list[int] = []
        self._lots: list[tuple[float, int]] = []
        self._ranks: list[Rank] = []
        self._front = ParetoFront(history)
        self._view: Split | None = None
        self.completed_or_pruned = 0
        """Number of trials that completed or were pruned."""
        self.groups: list[Space] = []
        """Partition of the parameters: those of one group occur together or not at all."""
        self._divided: Mapping[str, BaseDistribution] = {}
        """Space by which the groups were divided last."""
        self.common: Space | None = None
        """Parameters that all trials have, with the same range."""

    @property
    def finished(self) -> int:
        """Number of trials completed, pruned, or failed because of their parameters."""
        return len(self._numbers)

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Learn from what has finished since the last call.

        Args:
            trials: all of the study's, in an order to which later calls only append.
            resumed: numbers of trials that were paused and are no longer, a list that only grows;
                None if the storage has none.
        """
        for number in self._to_reread(resumed):
            position, trial = self._paused[number]
            if position < len(trials) and _was_resumed(trial, trials[position]):
                self._forget(number)
        # Another thread may have read a later state of the study, with more trials: skip those.
        before = sorted(index for index in self._unfinished if index < len(trials))
        open_before = [(index, trials[index]) for index in before]
        new = trials[self._read_count :]  # a slice, because imputing many trials at once is cheaper
        for position, trial in [*open_before, *enumerate(new, self._read_count)]:
            if trial.state.is_finished():
                self._unfinished.discard(position)
                self._learn(trial)
                if PAUSED in trial.system_attrs:
                    self._paused[trial.number] = position, trial
            else:
                self._unfinished.add(position)
        self._read_count = max(self._read_count, len(trials))

    def running(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return running trials, the latest if there are more than `history`."""
        indices = [index for index in sorted(self._unfinished) if index < len(trials)]
        running = [trials[i] for i in indices if trials[i].state == TrialState.RUNNING]
        return running[-self._history :]

    def view(self) -> Split:
        """Split off the good trials like Optuna's TPE, and others up to `history`.

        With several objectives Optuna's share of good trials grows without bound: here it is at
        most a quarter of the history. The others are the latest, and an even sample of earlier
        ones.
        """
        if self._view is None:
            good = self._good()
            bad = self._bad(good, self._history - len(good))
            self._view = Split(
                TrialColumns(self._in_order(good)),
                TrialColumns(self._in_order(bad)),
                self.finished,
            )
        return self._view

    def _learn(self, trial: FrozenTrial) -> None:
        if trial.state != TrialState.FAIL:
            self.completed_or_pruned += 1
            self._divide(trial.distributions)
        else:
            infeasible = shown_as_infeasible(trial)
            if infeasible is None:
                return
            trial = infeasible
        self._view = None
        observation = observe(trial)
        self._observed[trial.number] = observation
        insort(self._numbers, trial.number)
        # Multiples of the golden ratio are spread evenly however many there are. Trials with the
        # lowest lots are an even sample, the same in any order of arrival and any process.
        insort(self._lots, ((trial.number * _GOLDEN) % 1.0, trial.number))
        rank = self._rank(trial)
        if self._is_on_front(rank):
            self._front.add(
                trial.number,
                self._orientations * np.array(trial.values),
            )
        else:
            insort(self._ranks, rank)

    def _to_reread(self, resumed: Sequence[int] | None) -> list[int]:
        """Return the numbers of paused trials that may have been resumed."""
        if resumed is None:
            return list(self._paused)
        new = resumed[self._resumed_read :]
        self._resumed_read = len(resumed)
        return sorted(self._paused.keys() & new)

    def _forget(self, number: int) -> None:
        """Remove a paused trial that has been resumed."""
        position, trial = self._paused.pop(number)
        self.completed_or_pruned -= 1
        self._view = None
        del self._observed[trial.number]
        self._numbers.remove(trial.number)
        self._lots.remove(((trial.number * _GOLDEN) % 1.0, trial.number))
        rank = self._rank(trial)
        if self._is_on_front(rank):
            self._front.remove(trial.number)
        else:
            self._ranks.remove(rank)
        self._unfinished.add(position)

    def _is_on_front(self, rank: Rank) -> bool:
        """Return True if the front holds the trial: a complete one of several objectives."""
        return rank[0] == 0 and len(self._orientations) > 1

    def _rank(self, trial: FrozenTrial) -> Rank:
        """Rank like Optuna's TPE: complete trials, then pruned ones, then infeasible ones."""
        violation = sum(excess for excess in trial.constraints.values() if excess > 0)
        if violation > 0:
            return (2, violation, 0.0, trial.number)
        if trial.state == TrialState.COMPLETE:
            return (0, self._loss(trial.values[0]), 0.0, trial.number)
        if not trial.intermediate_values:
            return (1, 1.0, 0.0, trial.number)
        step = max(trial.intermediate_values)
        return (
            1,
            -step,
            self._loss(trial.intermediate_values[step]),
            trial.number,
        )

    def _loss(self, value: float) -> float:
        return math.inf if math.isnan(value) else float(self._orientations[0]) * value

    def _good(self) -> set[int]:
        count = math.ceil(0.1 * self.finished)
        if len(self._orientations) == 1:
            return {rank[-1] for rank in self._ranks[: min(count, GOOD_MAX)]}
        count = min(count, self._history // 4)
        good = self._front.best(count)
        return good | {rank[-1] for rank in self._ranks[: count - len(good)]}

    def _bad(self, good: set[int], room: int) -> set[int]:
        others = (n for n in reversed(self._numbers) if n not in good)
        latest = set(islice(others, min(LATEST, room)))
        sample = (n for _, n in self._lots if n not in good and n not in latest)
        return latest | set(islice(sample, room - len(latest)))

    def _in_order(self, numbers: set[int]) -> list[Observation]:
        return [self._observed[number] for number in sorted(numbers)]

    def _divide(self, space: Mapping[str, BaseDistribution]) -> None:
        if space == self._divided and self.common is not None:
            return  # almost every trial has the same space as the one before
        self._divided = space
        known = {name for group in self.groups for name in group}
        parts: list[Space] = []
        for group in self.groups:
            parts.append({name: space[name] for name in group if name in space})  # latest range
            parts.append({name: kind for name, kind in group.items() if name not in space})
        parts.append({name: kind for name, kind in space.items() if name not in known})
        self.groups = [part for part in parts if part]
        common = space if self.common is None else self.common
        self.common = {name: kind for name, kind in common.items() if space.get(name) == kind}


class ParetoFront:
    """Complete trials of several objectives, as far as they may be among the best.

    Ranking all of them at each ask would cost ever more. Once there are more candidates than the
    size, the worse half is dropped. A dropped trial never becomes good again, though Optuna might
    call it good after its neighbours were overtaken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers: list[int] = []
        self._losses: list[npt.NDArray[np.float64]] = []

    def add(self, number: int, losses: npt.NDArray[np.float64]) -> None:
        # By number, because numbers break ties.
        at = bisect_left(
            self._numbers,
            number,
        )
        self._numbers.insert(at, number)
        self._losses.insert(at, losses)
        if len(self._numbers) > self._size:
            best = self.best(self._size // 2)
            indices = [i for i, known in enumerate(self._numbers) if known in best]
            self._numbers = [self._numbers[i] for i in indices]
            self._losses = [self._losses[i] for i in indices]

    def remove(self, number: int) -> None:
        """Remove a trial, if it was not dropped."""
        if number in self._numbers:
            at = self._numbers.index(number)
            del self._numbers[at], self._losses[at]

    def best(self, count: int) -> set[int]:
        """Return the best by rank of dominance.

        Of the last rank those that add most to the volume.
        """
        if count >= len(self._numbers):
            return set(self._numbers)
        if count == 0:
            return set()
        losses = np.array(self._losses)
        ranks = non_domination_ranks(losses, count)
        last = int(np.sort(ranks)[count - 1])
        sure, tied = np.flatnonzero(ranks < last), np.flatnonzero(ranks == last)
        if len(sure) + len(tied) > count:
            worst = losses[tied].max(axis=0)
            reference = np.maximum(1.1 * worst, 0.9 * worst)
            reference[reference == 0] = 1e-12
            tied = spread_subset(losses[tied], tied, count - len(sure), reference)
        return {self._numbers[int(i)] for i in (*sure, *tied)}


def _was_resumed(paused: FrozenTrial, now: FrozenTrial) -> bool:
    return bool(paused.system_attrs[PAUSED] != now.system_attrs.get(PAUSED))


def observe(trial: FrozenTrial) -> Observation:
    """Return a trial as data of the model."""
    point = {}
    for name, kind in trial.distributions.items():
        point[name] = kind.to_internal_repr(trial.params[name])
    values = None if trial.values is None else tuple(trial.values)
    return Observation(trial.number, point, values)
