"""An executor without workers: attempts follow a script on a virtual clock, so hours pass in milliseconds.

A script says, for a launch, what happens after how many seconds: `[(0.5, Reported(...)), (2.0, Finished(...))]`,
each delay counted from the event before. It may be a generator, which then goes on only as far as time does.
`events` moves the clock to the next thing that is due, but never further than its time-out.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesvc.execute.executor import (
    Asked,
    AttemptId,
    Capacity,
    Event,
    Launch,
    Lost,
    Outcome,
    Payload,
    Reported,
    Started,
    Yielded,
)
from tunesvc.spec import ParamValue

Script = Callable[[Launch], Iterable[tuple[float, Payload]]]


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Seconds since the start of the simulation."""
        return self._now_s

    def advance(self, to_s: float) -> None:
        """Move to a later moment; an earlier one changes nothing."""
        self._now_s = max(self._now_s, to_s)


@dataclass(slots=True)
class _Attempt:
    launch: Launch
    script: Iterator[tuple[float, Payload]]
    seq: int = 0
    stop_requested: bool = False
    asked: bool = False
    answers: dict[str, ParamValue] = field(default_factory=dict)


class SimulatedExecutor:
    """Runs scripts in virtual time. Attempts beyond `slots` wait their turn."""

    def __init__(
        self,
        script: Script,
        *,
        clock: VirtualClock,
        slots: int = 4,
        obedient: bool = True,
    ) -> None:
        """`obedient=False` makes attempts ignore the request to stop."""
        self._script = script
        self._clock = clock
        self._slots = slots
        self._obedient = obedient
        self._waiting: list[Launch] = []
        self._running: dict[AttemptId, _Attempt] = {}
        self._due: list[tuple[float, int, AttemptId, Payload]] = []
        self._order = itertools.count()
        self._ready: list[Event] = []

    def capacity(self) -> Capacity:
        """One imaginary node with a CPU for each slot."""
        return Capacity(nodes=1, cpu=self._slots, gpu=0, memory=2**30)

    def slots(self) -> int:
        """As constructed."""
        return self._slots

    def launch(self, launch: Launch) -> None:
        """Start the launch's script, now or when a slot is free."""
        self._waiting.append(launch)
        self._fill_slots()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """What is due by the clock; moves the clock when nothing is."""
        if not self._ready:
            self._advance(timeout_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Events are delivered once and never again, so there is nothing to forget."""

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        """Let the attempt's script go on."""
        if attempt in self._running:
            self._running[attempt].answers[name] = value
            self._running[attempt].asked = False
            self._schedule_next(attempt)

    def answers(self, attempt: AttemptId) -> Mapping[str, ParamValue]:
        """What the attempt was answered so far."""
        return self._running[attempt].answers if attempt in self._running else {}

    def stop(self, attempt: AttemptId) -> None:
        """Make the attempt yield at its next report; one that waits for a slot yields now."""
        if self._drop_waiting(attempt):
            self._ready.append(Event(attempt, 1, Yielded()))
        elif attempt in self._running:
            self._running[attempt].stop_requested = True

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt now."""
        if self._drop_waiting(attempt):
            self._ready.append(Event(attempt, 1, Lost("killed before a slot was free")))
        elif attempt in self._running:
            self._emit(attempt, Lost("killed"))

    def close(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._running.clear()
        self._due.clear()

    def _drop_waiting(self, attempt: AttemptId) -> bool:
        before = len(self._waiting)
        self._waiting = [launch for launch in self._waiting if launch.attempt != attempt]
        return len(self._waiting) < before

    def _fill_slots(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            launch = self._waiting.pop(0)
            self._running[launch.attempt] = _Attempt(launch, iter(self._script(launch)))
            self._emit(launch.attempt, Started(node="simulated", pid=launch.trial_number))
            self._schedule_next(launch.attempt)

    def _schedule_next(self, attempt: AttemptId) -> None:
        delay_s, payload = next(self._running[attempt].script, (0.0, Lost("the script ended without an outcome")))
        heapq.heappush(self._due, (self._clock.now() + delay_s, next(self._order), attempt, payload))

    def _advance(self, timeout_s: float) -> None:
        deadline = self._clock.now() + timeout_s
        while self._due and self._due[0][0] <= deadline and not self._ready:
            at_s, _, attempt, payload = heapq.heappop(self._due)
            self._clock.advance(at_s)
            self._happen(attempt, payload)
        if not self._ready:
            self._clock.advance(deadline)

    def _happen(self, attempt: AttemptId, payload: Payload) -> None:
        running = self._running.get(attempt)
        if running is None:
            return  # killed in the meantime
        self._emit(attempt, payload)
        if isinstance(payload, Outcome):
            return
        if running.stop_requested and self._obedient and isinstance(payload, Reported):
            self._emit(attempt, Yielded())
        elif isinstance(payload, Asked):
            running.asked = True
        else:
            self._schedule_next(attempt)

    def _emit(self, attempt: AttemptId, payload: Payload) -> None:
        running = self._running[attempt]
        running.seq += 1
        self._ready.append(Event(attempt, running.seq, payload))
        if isinstance(payload, Outcome):
            del self._running[attempt]
            self._fill_slots()
