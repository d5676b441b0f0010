"""Trials that reached each rung of a study, updated as they report, at a cost that does not grow.

A trial's value at a rung is its first point at or after the rung's step. A finished trial is read
once; a running one again when its curve is another mapping or has more points. Imports no pruner.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.tracking.finished import changes_of
from tunesvc.search.tracking.objectives import (
    orientations_of,
    point_at,
    points_of,
)
from tunesvc.search.tracking.pareto import ranked
from tunesvc.search.tracking.pausing import PAUSED
from tunesvc.util.optuna_internals import id_of, storage_of

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


class RungEntry(NamedTuple):
    """A trial that reached a rung; entries sort from best to worst."""

    order: float
    """Its loss, or with several objectives its rank."""
    number: int
    losses: tuple[float, ...]
    """One per objective; infinite for NaN."""


class _ReadTrial(NamedTuple):
    """A running trial as it was last read."""

    values: Mapping[int, float]
    points: int
    entry: RungEntry | None
    """None if it had not reached the rung."""


class RungRanking:
    """Entries of one rung, the best first."""

    def __init__(self, entries: Sequence[RungEntry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[RungEntry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> RungEntry:
        return self._entries[index]

    def index_of(self, one: RungEntry) -> int:
        """Return the entry's index; equally good ones are in order of their numbers."""
        return bisect.bisect_left(self._entries, one)

    def rank_of(self, one: RungEntry) -> int:
        """Return the entry's rank, 0 for the best; equal ones share one."""
        return bisect.bisect_left(
            self._entries,
            one.order,
            key=lambda other: other.order,
        )


class RungTable:
    """The rungs of one study. Not thread-safe.

    A pruner asks about a trial as it was at a step, when it may have had fewer points than now.
    """

    def __init__(self, orientations: np.ndarray) -> None:
        self._orientations = orientations
        self._read_count = 0
        self._open: set[int] = set()
        """Indices of trials that may still report."""
        self._paused: dict[int, FrozenTrial] = {}
        """Index -> a paused trial as it was read; it is read again after it resumed."""
        self._entries: dict[int, list[RungEntry]] = {}
        """Entries by rung, for rungs that were asked for;
        unsorted if there are several objectives."""
        self.version: int | None = None
        """Version of the trials; unchanged, running trials need not be read again.
        None if unknown."""
        self._updated_version: int | None = None
        self._read_version: dict[int, int | None] = {}
        self._reads: dict[int, dict[int, _ReadTrial]] = {}
        """Rung -> index of a trial that may still report -> what was read."""

    def ranking_at(
        self,
        trials: Sequence[FrozenTrial],
        rung: int,
        queried: FrozenTrial | None = None,
    ) -> tuple[RungRanking, RungEntry | None]:
        """Return the ranking at a rung, and the entry of the trial that is asked about.

        Args:
            trials: all of the study's, in an order to which later calls only append.
            queried: counts with its curve as given here, not as it is among the trials.
        """
        self._update(trials)
        if rung not in self._entries:
            finished = (trials[i] for i in range(self._read_count) if i not in self._open)
            self._entries[rung] = sorted(self._entries_of(finished, rung))
            self._reads[rung] = {}
        self._read_running(trials, rung)
        entries = self._entries[rung].copy()
        own = None
        if queried is not None:
            self._drop(
                entries,
                queried.number,
                self._reads[rung].get(queried.number),
            )
            for own in self._entries_of([queried], rung):
                bisect.insort(entries, own)
        if len(self._orientations) > 1 and entries:
            ranks = ranked(np.array([one.losses for one in entries])).tolist()
            pairs = zip(ranks, entries, strict=True)
            entries = sorted(one._replace(order=rank) for rank, one in pairs)
            if own is not None:
                own = next(
                    (one for one in entries if one.number == own.number),
                    None,
                )
        return RungRanking(entries), own

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        if self.version is not None and self._updated_version == self.version:
            return
        self._updated_version = self.version
        for index in [p for p, trial in self._paused.items() if trials[p] is not trial]:
            self._forget(index)
        for index in range(len(trials), self._read_count):  # removed trials
            self._close(index)
        finished = [i for i in self._open if trials[i].state not in _UNFINISHED]
        for index in range(self._read_count, len(trials)):
            if trials[index].state in _UNFINISHED:
                self._open.add(index)
            else:
                finished.append(index)
        for index in finished:
            self._close(index)
            if PAUSED in trials[index].system_attrs:
                self._paused[index] = trials[index]
            for rung, entries in self._entries.items():
                for one in self._entries_of([trials[index]], rung):
                    bisect.insort(entries, one)
        self._read_count = len(trials)

    def _read_running(
        self,
        trials: Sequence[FrozenTrial],
        rung: int,
    ) -> None:
        if self.version is not None and self._read_version.get(rung) == self.version:
            return
        self._read_version[rung] = self.version
        entries, reads = self._entries[rung], self._reads[rung]
        is_cached = len(self._orientations) == 1
        for index in self._open:
            values, known = trials[index].intermediate_values, reads.get(index)
            is_same = known is not None and known.values is values and known.points == len(values)
            if is_cached and is_same:
                continue
            if known is not None and known.entry is not None:
                del entries[bisect.bisect_left(entries, known.entry)]
            one = next(self._entries_of([trials[index]], rung), None)
            reads[index] = _ReadTrial(values, len(values), one)
            if one is not None:
                bisect.insort(entries, one)

    def _close(self, index: int) -> None:
        """Stop following a trial."""
        self._open.discard(index)
        for rung, reads in self._reads.items():
            known = reads.pop(index, None)
            if known is not None and known.entry is not None:
                entries = self._entries[rung]
                del entries[bisect.bisect_left(entries, known.entry)]

    def _drop(
        self,
        entries: list[RungEntry],
        number: int,
        read: _ReadTrial | None,
    ) -> None:
        """Remove a trial's entry."""
        if read is None:
            entries[:] = [one for one in entries if one.number != number]
        elif read.entry is not None:
            del entries[bisect.bisect_left(entries, read.entry)]

    def _forget(self, index: int) -> None:
        """Follow a trial again that was paused."""
        number = self._paused.pop(index).number
        self._open.add(index)
        # By number: the trial that was read shares its curve with the current one.
        for entries in self._entries.values():
            self._drop(entries, number, None)

    def _entries_of(
        self,
        trials: Sequence[FrozenTrial] | Iterator[FrozenTrial],
        rung: int,
    ) -> Iterator[RungEntry]:
        for trial in trials:
            losses = self._losses_at(trial, rung)
            if losses is not None:
                yield RungEntry(
                    losses[0] if len(losses) == 1 else 0.0,
                    trial.number,
                    losses,
                )

    def _losses_at(
        self,
        trial: FrozenTrial,
        rung: int,
    ) -> tuple[float, ...] | None:
        """Return the losses of the first point at or after a rung; None before it."""
        objectives = len(self._orientations)
        # Copied in one operation: Optuna changes the curve when another thread reports.
        steps = list(trial.intermediate_values if objectives == 1 else points_of(trial, objectives))
        step = min((step for step in steps if step >= rung), default=None)
        point = None if step is None else point_at(trial, step, objectives)
        if point is None:
            return None
        values = (self._orientations * point).tolist()
        return tuple(math.inf if math.isnan(loss) else loss for loss in values)


class RungRegistry:
    """Rungs of the studies that a pruner is asked about; rebuilt if they were lost."""

    def __init__(self) -> None:
        self._rungs: WeakKeyDictionary[BaseStorage, dict[int, RungTable]] = WeakKeyDictionary()

    def of(self, study: Study) -> RungTable:
        """Return the rungs of a study."""
        known = self._rungs.setdefault(storage_of(study), {})
        rungs = known.setdefault(id_of(study), RungTable(orientations_of(study)))
        rungs.version = changes_of(study)
        return rungs

    def __reduce__(self) -> tuple[type[RungRegistry], tuple[()]]:
        return RungRegistry, ()
