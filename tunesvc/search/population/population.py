"""A population: members that train in stretches, and copy the better ones.

Population-based training (Jaderberg et al. 2017, "Population Based Training of Neural Networks"),
asynchronous, with truncation selection. A trial is one stretch or several with fixed parameters. It
pauses at each stop with a recorded checkpoint. When a worker is free, the member that is furthest
behind is compared with all that have been at its stop. If it is among the worst, it ends, and a
copy of one of the best begins at the recorded checkpoint of that stop, with other parameters. So
nothing is copied that was not recorded, and members stay close together, however few workers there
are.

Decides purely, by the trials and the arrivals of the study, both of which are stored: a restarted
population decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.lineage import Parent, parent_of
from tunesvc.spec.sections.population_keys import Search


class Arrival(NamedTuple):
    """A trial paused at a stop, and its checkpoint is recorded."""

    number: int
    step: int
    checkpoint: str


@dataclass(frozen=True, slots=True)
class NewMember:
    """A member begins at step zero."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a trial begins, in place of another one or of one that failed."""

    parent: Parent
    replaces: int | None
    """A paused trial that ends with it."""
    reason: str
    """Reason for the end of that trial."""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Continuation:
    """A paused trial continues as it is."""

    number: int
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


Move = NewMember | Copy | Continuation


class _Arrived(NamedTuple):
    loss: float
    number: int
    parent: Parent


class Population:
    """The members of one study. Not thread-safe."""

    def __init__(
        self,
        memory: RecordingStorage,
        search: Search,
        *,
        orientation: float,
        seed: int,
        arrivals: Iterable[Arrival] = (),
    ) -> None:
        """Restore a population.

        Args:
            memory: the study.
            search: its rules.
            orientation: turns a value into a loss.
            seed: of the choice of parents.
            arrivals: all that are recorded.
        """
        self._memory = memory
        self._search = search
        self._orientation = orientation
        self._seed = seed
        self._arrived: dict[int, dict[int, _Arrived]] = {}
        """Stop -> number of a trial -> its arrival there."""
        self._floor = 0
        """Stop before which checkpoints may be gone."""
        for arrival in arrivals:
            self.arrive(arrival)

    def arrive(self, arrival: Arrival) -> None:
        """Note that a trial is at a stop; may be repeated."""
        number, step, checkpoint = arrival
        stop = self._search.stop_at(step)
        points = self._memory.get_trial(number).intermediate_values
        at = min((one for one in points if one >= stop), default=None)
        value = math.nan if at is None else self._orientation * points[at]
        loss = math.inf if math.isnan(value) else value
        arrived = self._arrived.setdefault(stop, {})
        arrived[number] = _Arrived(loss, number, Parent(number, step, checkpoint))

    @property
    def finished(self) -> str:
        """Reason why the population is complete; empty while it is not."""
        complete = sum(trial.state == TrialState.COMPLETE for trial in self._trials)
        if complete < self._search.members:
            return ""
        return self._search.end_reason

    @property
    def is_full(self) -> bool:
        """True if as many members have begun at step zero as there should be."""
        return self._begun >= self._search.members

    def kept(self, number: int, paused: Collection[int]) -> tuple[str, ...]:
        """Return the checkpoints of a trial that copies may need from now on."""
        stops = [self._search.stop_at(step) for step in self._positions(paused).values()]
        self._floor = max(self._floor, min(stops, default=0))
        return tuple(
            arrived[number].parent.checkpoint
            for stop, arrived in sorted(self._arrived.items())
            if stop >= self._floor and number in arrived
        )

    def next_move(self, paused: Collection[int], *, asks: bool) -> Move | None:
        """Return what a free worker does; None if it waits for more members to arrive.

        Args:
            paused: numbers of paused trials.
            asks: True if a new trial is allowed.
        """
        positions = self._positions(paused)
        complete = sum(trial.state == TrialState.COMPLETE for trial in self._trials)
        if asks and len(positions) + complete < self._search.members:
            return self._filled(positions)
        if not paused:
            return None
        number = min(paused, key=lambda one: (positions[one], one))
        stop = self._search.stop_at(positions[number])
        if not asks:
            return Continuation(number, "continues unchanged: the budget allows no more trials")
        if self._search.method == "schedule":
            return self._next_stage(number, stop)
        present = complete + sum(position >= stop for position in positions.values())
        if 2 * present < self._search.members:
            return None
        return self._judged(number, stop)

    # --- positions ------------------------------------------------------------------------------

    @property
    def _trials(self) -> list[FrozenTrial]:
        return self._memory.get_all_trials(self._memory.study_id, deepcopy=False)

    @property
    def _begun(self) -> int:
        return sum(parent_of(trial) is None for trial in self._trials)

    def _positions(self, paused: Collection[int]) -> dict[int, int]:
        """Return the last step of each open trial that a checkpoint has; -1: none."""
        is_open = {trial.number: trial.state == TrialState.RUNNING for trial in self._trials}
        numbers = [number for number in is_open if is_open[number] or number in paused]
        return {number: self._position(number) for number in numbers}

    def _position(self, number: int) -> int:
        steps = [
            arrived[number].parent.step for arrived in self._arrived.values() if number in arrived
        ]
        parent = parent_of(self._memory.get_trial(number))
        return max([-1 if parent is None else parent.step, *steps])

    # --- moves ----------------------------------------------------------------------------------

    def _filled(self, positions: Mapping[int, int]) -> Move:
        """Return the move that fills a vacancy: a new member, or a copy in place of a failed one.

        A copy begins at the first stop of which checkpoints are kept; if no member is left, at the
        last one, since the last checkpoints of trials are never deleted.
        """
        stops = sorted(stop for stop in self._arrived if stop >= self._floor)
        if not stops or not self.is_full:
            return NewMember()
        stop = stops[0] if positions else stops[-1]
        arrived = sorted(self._arrived[stop].values())
        best = arrived[: max(1, self._quota(len(arrived)))]
        return Copy(self._chosen(best).parent, None, "")

    def _next_stage(self, number: int, stop: int) -> Copy:
        parent = self._arrived[stop][number].parent
        reason = f"continues with the next parameters of the schedule after step {parent.step}"
        return Copy(parent, number, reason, {"step": parent.step, "parent": number})

    def _judged(self, number: int, stop: int) -> Move:
        """Return a copy in place of a trial that is among the worst at its stop."""
        ranking = sorted(self._arrived[stop].values())
        own = self._arrived[stop][number]
        rank, quota = ranking.index(own), self._quota(len(ranking))
        details: dict[str, Any] = {
            "step": own.parent.step,
            "value": self._orientation * own.loss,
            "rank": rank + 1,
            "of": len(ranking),
            "replaced": quota,
        }
        placed = f"rank {rank + 1} of {len(ranking)} at step {stop}, with {self._shown(own)}"
        better = [one for one in ranking[:quota] if one.loss < own.loss and stop >= self._floor]
        if rank < len(ranking) - quota or not better:
            worst = f"only the worst {quota if quota > 1 else 'one'} would be replaced"
            worst = worst if quota else "too few to replace any"
            return Continuation(number, f"{placed}; {worst}", details)
        chosen = self._chosen(better)
        reason = (
            f"replaced by a copy of trial {chosen.number} at step {chosen.parent.step}: {placed}; "
            f"trial {chosen.number} has {self._shown(chosen)}"
        )
        details["parent"] = chosen.number
        details["parent_value"] = self._orientation * chosen.loss
        return Copy(chosen.parent, number, reason, details)

    def _quota(self, arrived: int) -> int:
        """Return how many are replaced: at least one once more than half have arrived."""
        at_least = int(2 * arrived > self._search.members)
        return max(int(self._search.quantile * arrived), at_least)

    def _chosen(self, best: list[_Arrived]) -> _Arrived:
        """Choose a parent of the next trial at random."""
        rng = np.random.default_rng([self._seed, self._memory.count])
        return best[rng.integers(len(best))]

    def _shown(self, arrived: _Arrived) -> str:
        return f"{self._orientation * arrived.loss:.6g}"
