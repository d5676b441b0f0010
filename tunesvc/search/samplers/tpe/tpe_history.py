"""A study's finished trials in the order of how good they are, kept as they finish, and a bounded view of them.

A sampler that reads every trial at every ask becomes slower with each of them. `TPEHistory` reads a trial once, when
it has finished; a split then costs the same after 10,000 trials as after 500. Imports no sampler.
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
from optuna._hypervolume.hssp import _solve_hssp
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.samplers.tpe.parzen import LATEST
from tunesvc.search.study_storage import shown_as_infeasible
from tunesvc.search.tracking.objectives import orient_each
from tunesvc.search.tracking.pausing import PAUSED

GOOD_MAX = 25
"""How many trials are good, at most, of a study with one objective; Optuna's number."""
_GOLDEN = (math.sqrt(5) - 1) / 2

Array = npt.NDArray[np.float64]
Space = dict[str, BaseDistribution]
Rank = tuple[int, float, float, int]


@dataclass(frozen=True, slots=True)
class Observation:
    """A trial as it is modelled."""

    number: int
    point: Mapping[str, float]
    """Parameters in Optuna's internal representation."""
    values: tuple[float, ...] | None = None


@dataclass(slots=True)
class TrialColumns(Sequence[Observation]):
    """Some trials, in order of their numbers, and their parameters as columns, each made once. Do not change it."""

    observations: Sequence[Observation]
    numbers: npt.NDArray[np.int_] = field(init=False, compare=False)
    """Of the trials."""
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
        self.numbers = np.array([seen.number for seen in self.observations], dtype=int)

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, place: Any) -> Any:
        return self.observations[place]

    def column(self, name: str) -> Array:
        """One parameter of each trial in Optuna's internal representation; NaN where it has none."""
        if name not in self._columns:
            self._columns[name] = np.array([seen.point.get(name, math.nan) for seen in self.observations])
        return self._columns[name]

    def table(self, names: Iterable[str]) -> tuple[Array, npt.NDArray[np.int_]]:
        """The points that have all of these parameters, shape (points, parameters), and the numbers of their trials."""
        key = tuple(names)
        if key not in self._tables:
            points = np.stack([self.column(name) for name in key], axis=1)
            complete = ~np.isnan(points).any(axis=1)
            self._tables[key] = points[complete], self.numbers[complete]
        return self._tables[key]


@dataclass(frozen=True, slots=True)
class Split:
    """What is modelled of a study."""

    good: TrialColumns
    bad: TrialColumns
    finished: int
    """How many trials it was chosen from."""


class TPEHistory:
    """One study's trials. Not thread-safe.

    Args:
        history: how many finished trials a view shows, at least 100. The good ones are always among them.
    """

    def __init__(self, directions: Sequence[StudyDirection], history: int) -> None:
        self._orientations = orient_each(directions)
        self._history = history
        self._looked_at = 0
        self._unfinished: set[int] = set()
        self._paused: dict[int, tuple[int, FrozenTrial]] = {}
        """Number -> position, and the trial as it was learned; it is learned anew when it has gone on."""
        self._heard = 0
        self._observed: dict[int, Observation] = {}
        self._numbers: list[int] = []
        self._lots: list[tuple[float, int]] = []
        self._ranks: list[Rank] = []
        self._front = ParetoFront(history)
        self._view: Split | None = None
        self.told = 0
        """Trials that completed or were pruned."""
        self.groups: list[Space] = []
        """A partition of the parameters: those of one group occur together or not at all."""
        self._divided: Mapping[str, BaseDistribution] = {}
        """The space by which they were divided last."""
        self.common: Space | None = None
        """The parameters that all trials have, with the same range."""

    @property
    def finished(self) -> int:
        """How many trials there are to learn from: completed, pruned, and failed because of their parameters."""
        return len(self._numbers)

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Learn what has finished since the last call.

        Args:
            trials: all of the study's, in an order to which later calls only append.
            gone_on: numbers of the trials that were paused and are no longer, in a list that only grows; None when
                nobody tells.
        """
        for number in self._called(resumed):
            position, trial = self._paused[number]
            if position < len(trials) and _has_gone_on(trial, trials[position]):
                self._forget(number)
        # Those under way in another thread's later state of the study are left to it.
        open_before = [(place, trials[place]) for place in sorted(self._unfinished) if place < len(trials)]
        new = trials[self._looked_at :]  # at once: looking at many together may be cheaper
        for position, trial in [*open_before, *enumerate(new, self._looked_at)]:
            if trial.state.is_finished():
                self._unfinished.discard(position)
                self._learn(trial)
                if PAUSED in trial.system_attrs:
                    self._paused[trial.number] = position, trial
            else:
                self._unfinished.add(position)
        self._looked_at = max(self._looked_at, len(trials))

    def running(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of the trials that run, the latest of them if there are more than a view shows."""
        known = (trials[position] for position in sorted(self._unfinished) if position < len(trials))
        return [trial for trial in known if trial.state == TrialState.RUNNING][-self._history :]

    def view(self) -> Split:
        """The good trials as Optuna's TPE splits them off, and as many others as the history has room for.

        With several objectives Optuna's share of good trials grows without bound: here it is at most a quarter of the
        history. The others are the latest, and an even sample of those before.
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
            self.told += 1
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
        # Multiples of the golden ratio are spread evenly, however many of them are taken: those with the lowest lots
        # are an even sample of all trials, the same one in whatever order and process they were learnt.
        insort(self._lots, ((trial.number * _GOLDEN) % 1.0, trial.number))
        rank = self._rank(trial)
        if self._is_on_front(rank):
            self._front.add(trial.number, self._orientations * np.array(trial.values))
        else:
            insort(self._ranks, rank)

    def _called(self, resumed: Sequence[int] | None) -> list[int]:
        """Numbers of paused trials to look at once more."""
        if resumed is None:
            return list(self._paused)
        heard, self._heard = self._heard, len(resumed)
        return sorted(self._paused.keys() & resumed[heard:])

    def _forget(self, number: int) -> None:
        """A paused trial goes on, or has ended."""
        position, trial = self._paused.pop(number)
        self.told -= 1
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
        """Whether the front knows the trial: of several objectives those that completed, or are shown so."""
        return rank[0] == 0 and len(self._orientations) > 1

    def _rank(self, trial: FrozenTrial) -> Rank:
        """Completed trials by value, then pruned ones by how far they came, then infeasible ones: as Optuna's TPE."""
        violation = sum(excess for excess in trial.constraints.values() if excess > 0)
        if violation > 0:
            return (2, violation, 0.0, trial.number)
        if trial.state == TrialState.COMPLETE:
            return (0, self._loss(trial.values[0]), 0.0, trial.number)
        if not trial.intermediate_values:
            return (1, 1.0, 0.0, trial.number)
        step = max(trial.intermediate_values)
        return (1, -step, self._loss(trial.intermediate_values[step]), trial.number)

    def _loss(self, value: float) -> float:
        return math.inf if math.isnan(value) else float(self._orientations[0]) * value

    def _good(self) -> set[int]:
        wanted = math.ceil(0.1 * self.finished)
        if len(self._orientations) == 1:
            return {rank[-1] for rank in self._ranks[: min(wanted, GOOD_MAX)]}
        wanted = min(wanted, self._history // 4)
        good = self._front.best(wanted)
        return good | {rank[-1] for rank in self._ranks[: wanted - len(good)]}

    def _bad(self, good: set[int], room: int) -> set[int]:
        latest = set(
            islice(
                (n for n in reversed(self._numbers) if n not in good),
                min(LATEST, room),
            )
        )
        sample = (n for _, n in self._lots if n not in good and n not in latest)
        return latest | set(islice(sample, room - len(latest)))

    def _in_order(self, numbers: set[int]) -> list[Observation]:
        return [self._observed[number] for number in sorted(numbers)]

    def _divide(self, space: Mapping[str, BaseDistribution]) -> None:
        if space == self._divided and self.common is not None:
            return  # as is almost every trial's
        self._divided = space
        known = {name for group in self.groups for name in group}
        parts = [
            part
            for group in self.groups
            for part in (
                {name: space[name] for name in group if name in space},  # with its latest range
                {name: kind for name, kind in group.items() if name not in space},
            )
        ]
        parts.append({name: kind for name, kind in space.items() if name not in known})
        self.groups = [part for part in parts if part]
        common = space if self.common is None else self.common
        self.common = {name: kind for name, kind in common.items() if space.get(name) == kind}


class ParetoFront:
    """Completed trials with several objectives, of which it knows the best.

    Ranking all of them at each turn would cost ever more. Kept are the candidates: when there are more than four times
    the wanted number, the worse half goes. A trial once dropped is not good again, though Optuna might call it so
    after its neighbours were overtaken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers: list[int] = []
        self._losses: list[npt.NDArray[np.float64]] = []

    def add(self, number: int, losses: npt.NDArray[np.float64]) -> None:
        at = bisect_left(self._numbers, number)  # ties are broken by number
        self._numbers.insert(at, number)
        self._losses.insert(at, losses)
        if len(self._numbers) > self._size:
            kept = self.best(self._size // 2)
            both = [pair for pair in zip(self._numbers, self._losses, strict=True) if pair[0] in kept]
            self._numbers, self._losses = (
                [n for n, _ in both],
                [losses for _, losses in both],
            )

    def remove(self, number: int) -> None:
        """Forget one, which may have been dropped."""
        if number in self._numbers:
            at = self._numbers.index(number)
            del self._numbers[at], self._losses[at]

    def best(self, wanted: int) -> set[int]:
        """By rank of domination; of the last rank those that add most to the volume (Optuna's choice)."""
        if wanted >= len(self._numbers):
            return set(self._numbers)
        if wanted == 0:
            return set()
        losses = np.array(self._losses)
        ranks = _fast_non_domination_rank(losses, n_below=wanted)
        last = int(np.sort(ranks)[wanted - 1])
        sure, tied = np.flatnonzero(ranks < last), np.flatnonzero(ranks == last)
        if len(sure) + len(tied) > wanted:
            worst = losses[tied].max(axis=0)
            reference = np.maximum(1.1 * worst, 0.9 * worst)
            reference[reference == 0] = 1e-12
            tied = _solve_hssp(losses[tied], tied, wanted - len(sure), reference)
        return {self._numbers[int(i)] for i in (*sure, *tied)}


def _has_gone_on(paused: FrozenTrial, now: FrozenTrial) -> bool:
    return bool(paused.system_attrs[PAUSED] != now.system_attrs.get(PAUSED))


def observe(trial: FrozenTrial) -> Observation:
    """A trial as it is modelled."""
    point = {name: kind.to_internal_repr(trial.params[name]) for name, kind in trial.distributions.items()}
    values = None if trial.values is None else tuple(trial.values)
    return Observation(trial.number, point, values)
