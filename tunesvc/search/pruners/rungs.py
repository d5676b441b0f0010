"""Who came to which rung of a study, kept as trials report, so that a look costs the same however many there are.

A trial's value at a rung is its first point at or after the rung's step. What has ended is looked at once; what runs
when it has another curve than before, that is: another mapping, or more points in it. Knows no pruner.
"""

from __future__ import annotations

import bisect
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.tracking.finished import changes_of
from tunesvc.search.tracking.objectives import orientations_of, point_at, points_of
from tunesvc.search.tracking.pareto import ranked
from tunesvc.search.tracking.pausing import PAUSED

_UNDER_WAY = (TrialState.RUNNING, TrialState.WAITING)


class RungEntry(NamedTuple):
    """A trial that came to a rung; they sort from the best to the worst."""

    order: float
    """Its cost, or with several objectives its place."""
    number: int
    losses: tuple[float, ...]
    """By objective, small being good; infinite for NaN."""


class _Seen(NamedTuple):
    """A trial under way, as it was looked at last."""

    values: Mapping[int, float]
    points: int
    arrived: RungEntry | None
    """None: it had not come to the rung."""


class RungRanking:
    """Who came to one rung, the best first."""

    def __init__(self, arrived: Sequence[RungEntry]) -> None:
        self._arrived = arrived

    def __len__(self) -> int:
        return len(self._arrived)

    def __iter__(self) -> Iterator[RungEntry]:
        return iter(self._arrived)

    def __getitem__(self, index: int) -> RungEntry:
        return self._arrived[index]

    def index_of(self, one: RungEntry) -> int:
        """Where it stands; of those that are equally good, in order of their numbers."""
        return bisect.bisect_left(self._arrived, one)

    def place_of(self, one: RungEntry) -> int:
        """Its place, 0 for the best; equal ones share one."""
        return bisect.bisect_left(
            self._arrived,
            one.order,
            key=lambda other: other.order,
        )


class RungTable:
    """One study's rungs. Not thread-safe.

    Pruners are asked about a trial as it was at a step, which may be fewer points than the study has of it by now.
    """

    def __init__(self, orientations: np.ndarray) -> None:
        self._orientations = orientations
        self._looked_at = 0
        self._open: set[int] = set()
        """Positions of trials that may still report."""
        self._paused: dict[int, FrozenTrial] = {}
        """Position -> the trial as it was taken in; it is taken in anew when it has gone on."""
        self._arrived: dict[int, list[RungEntry]] = {}
        """By rung that somebody asked for; with several objectives not in order."""
        self.version: int | None = None
        """Of the trials: who is shown the same again need not look at those that run. None when nobody counts that."""
        self._updated_version: int | None = None
        self._looked_at_version: dict[int, int | None] = {}
        self._seen: dict[int, dict[int, _Seen]] = {}
        """By the same rung: position of a trial that may still report -> what was found."""

    def standing(
        self,
        trials: Sequence[FrozenTrial],
        rung: int,
        asked: FrozenTrial | None = None,
    ) -> tuple[RungRanking, RungEntry | None]:
        """Who came to a rung, and the trial that is asked about among them.

        Args:
            trials: all of the study's, in an order to which later calls only append.
            asked: counts as it is here, and not as it is among the trials.
        """
        self._update(trials)
        if rung not in self._arrived:
            over = (trials[i] for i in range(self._looked_at) if i not in self._open)
            self._arrived[rung], self._seen[rung] = (
                sorted(self._arrivals(over, rung)),
                {},
            )
        self._look_at_running(trials, rung)
        arrived = self._arrived[rung].copy()
        own = None
        if asked is not None:
            self._drop(arrived, asked.number, self._seen[rung].get(asked.number))
            for own in self._arrivals([asked], rung):
                bisect.insort(arrived, own)
        if len(self._orientations) > 1 and arrived:
            places = ranked(np.array([one.losses for one in arrived])).tolist()
            arrived = sorted(one._replace(order=place) for place, one in zip(places, arrived, strict=True))
            own = next(
                (one for one in arrived if own is not None and one.number == own.number),
                None,
            )
        return RungRanking(arrived), own

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        if self.version is not None and self._updated_version == self.version:
            return
        self._updated_version = self.version
        for position in [p for p, trial in self._paused.items() if trials[p] is not trial]:
            self._forget(position)
        for position in range(len(trials), self._looked_at):  # taken back
            self._close(position)
        over = [position for position in self._open if trials[position].state not in _UNDER_WAY]
        for position in range(self._looked_at, len(trials)):
            (self._open.add if trials[position].state in _UNDER_WAY else over.append)(position)
        for position in over:
            self._close(position)
            if PAUSED in trials[position].system_attrs:
                self._paused[position] = trials[position]
            for rung, arrived in self._arrived.items():
                for one in self._arrivals([trials[position]], rung):
                    bisect.insort(arrived, one)
        self._looked_at = len(trials)

    def _look_at_running(self, trials: Sequence[FrozenTrial], rung: int) -> None:
        if self.version is not None and self._looked_at_version.get(rung) == self.version:
            return
        self._looked_at_version[rung] = self.version
        arrived, seen, is_kept = (
            self._arrived[rung],
            self._seen[rung],
            len(self._orientations) == 1,
        )
        for position in self._open:
            values, known = trials[position].intermediate_values, seen.get(position)
            if known is not None and is_kept and known.values is values and known.points == len(values):
                continue
            if known is not None and known.arrived is not None:
                del arrived[bisect.bisect_left(arrived, known.arrived)]
            one = next(self._arrivals([trials[position]], rung), None)
            seen[position] = _Seen(values, len(values), one)
            if one is not None:
                bisect.insort(arrived, one)

    def _close(self, position: int) -> None:
        """The trial is open no longer."""
        self._open.discard(position)
        for rung, seen in self._seen.items():
            known = seen.pop(position, None)
            if known is not None and known.arrived is not None:
                del self._arrived[rung][bisect.bisect_left(self._arrived[rung], known.arrived)]

    def _drop(self, arrived: list[RungEntry], number: int, seen: _Seen | None) -> None:
        """Leave a trial out, wherever it stands."""
        if seen is None:
            arrived[:] = [one for one in arrived if one.number != number]
        elif seen.arrived is not None:
            del arrived[bisect.bisect_left(arrived, seen.arrived)]

    def _forget(self, position: int) -> None:
        """A paused trial goes on, or has ended."""
        number = self._paused.pop(position).number
        self._open.add(position)
        for arrived in self._arrived.values():  # by its number: what is shown of it shares its curve, which has grown
            self._drop(arrived, number, None)

    def _arrivals(
        self,
        trials: Sequence[FrozenTrial] | Iterator[FrozenTrial],
        rung: int,
    ) -> Iterator[RungEntry]:
        for trial in trials:
            losses = self._costs_at(trial, rung)
            if losses is not None:
                yield RungEntry(
                    losses[0] if len(losses) == 1 else 0.0,
                    trial.number,
                    losses,
                )

    def _costs_at(self, trial: FrozenTrial, rung: int) -> tuple[float, ...] | None:
        """The first point at or after a rung; None if the trial did not get there."""
        objectives = len(self._orientations)
        steps = trial.intermediate_values if objectives == 1 else points_of(trial, objectives)
        step = min((step for step in steps if step >= rung), default=None)
        point = None if step is None else point_at(trial, step, objectives)
        if point is None:
            return None
        losses = (orientation * value for orientation, value in zip(self._orientations.tolist(), point, strict=True))
        return tuple(math.inf if math.isnan(loss) else loss for loss in losses)


class RungRegistry:
    """A pruner's memory of the studies that it is asked about; it is learned anew where it was lost."""

    def __init__(self) -> None:
        self._rungs: weakref.WeakKeyDictionary[BaseStorage, dict[int, RungTable]] = weakref.WeakKeyDictionary()

    def of(self, study: Study) -> RungTable:
        """That study's rungs."""
        known = self._rungs.setdefault(study._storage, {})
        rungs = known.setdefault(study._study_id, RungTable(orientations_of(study)))
        rungs.version = changes_of(study)
        return rungs

    def __reduce__(self) -> tuple[type[RungRegistry], tuple[()]]:
        return RungRegistry, ()
