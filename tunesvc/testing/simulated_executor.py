"""An executor without workers: attempts follow a script on a virtual clock, in milliseconds.

A script gives the events of a launch with their delays in seconds, each after the event before:
`[(0.5, Reported(...)), (2.0, Finished(...))]`. A generator advances only as far as time does.
`events` moves the clock to the next due event, but never further than its timeout.

The attempts belong to a `SimulatedCluster`, which outlives its executors like a real one: a second
executor on the same cluster can adopt the attempts of the first.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Event,
    Launch,
    Lost,
    NodeInfo,
    Outcome,
    Payload,
    Reported,
    Started,
    StoppedEarly,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.ray.ray_resources import capacity_of
from tunesvc.spec import ParamValue

Script = Callable[[Launch], Iterable[tuple[float, Payload]]]


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Return the seconds since the start of the simulation."""
        return self._now_s

    def advance(self, to_s: float) -> None:
        """Move to a later time; an earlier one changes nothing."""
        self._now_s = max(self._now_s, to_s)


@dataclass(slots=True, eq=False)
class _SimulatedExecution:
    launch: Launch
    script: Iterator[tuple[float, Payload]]
    listener: SimulatedExecutor | None
    outbox: deque[Event] = field(default_factory=deque)
    """Events that are not acknowledged yet."""
    seq: int = 0
    over: bool = False
    frozen: bool = False
    held_back: list[Payload] = field(default_factory=list)
    """Events that happened while it was frozen."""
    stop_requested: bool = False
    asked: SuggestRequested | StudyRequested | None = None
    answers: dict[str, ParamValue | bytes] = field(default_factory=dict)


class SimulatedCluster:
    """Slots, and the attempts that run in them."""

    def __init__(
        self,
        script: Script,
        *,
        clock: VirtualClock,
        slots: int = 4,
        obedient: bool = True,
    ) -> None:
        """`obedient=False` makes attempts ignore the request to stop."""
        self.clock = clock
        self.slots = slots
        self.token = 0
        self._script = script
        self._obedient = obedient
        self._attempts: dict[AttemptId, _SimulatedExecution] = {}
        self._running: dict[AttemptId, None] = {}
        self._due: list[tuple[float, int, AttemptId, Payload]] = []
        self._order = itertools.count()

    @property
    def running(self) -> list[AttemptId]:
        """The attempts that have not ended."""
        return list(self._running)

    @property
    def free_slots(self) -> int:
        """Number of attempts that can start now."""
        return self.slots - len(self._running)

    def get(self, attempt: AttemptId) -> _SimulatedExecution | None:
        """Return an attempt that runs, or has unacknowledged events; else None."""
        return self._attempts.get(attempt)

    def take_over(self, token: int, attempts: Collection[AttemptId]) -> None:
        """Accept only this token from now on, and end all other attempts."""
        self.token = token
        for attempt in self._attempts.keys() - set(attempts):
            del self._attempts[attempt]
        self._running = {attempt: None for attempt in self._running if attempt in attempts}

    def start(self, launch: Launch, listener: SimulatedExecutor) -> None:
        """Run a launch's script in a free slot."""
        self._attempts[launch.attempt] = _SimulatedExecution(
            launch,
            iter(self._script(launch)),
            listener,
        )
        self._running[launch.attempt] = None
        self._emit(launch.attempt, Started(node="simulated", pid=launch.trial_number))
        self._schedule_next(launch.attempt)

    def lose(self, attempt: AttemptId, lost: Lost) -> None:
        """Lose the attempt's worker."""
        self.end(attempt, lost)

    def end(self, attempt: AttemptId, outcome: Outcome) -> None:
        """End the attempt now."""
        running = self._attempts[attempt]
        running.frozen = False
        running.held_back.clear()
        self._emit(attempt, outcome)

    def freeze(self, attempt: AttemptId) -> None:
        """Suppress the attempt's heartbeats and events until it is thawed."""
        self._attempts[attempt].frozen = True

    def thaw(self, attempt: AttemptId) -> None:
        """Let the attempt continue, and send its suppressed events."""
        running = self._attempts[attempt]
        running.frozen = False
        held_back, running.held_back = running.held_back, []
        for payload in held_back:
            self._happen(attempt, payload)

    def acknowledge(self, attempt: AttemptId, cursor: int) -> None:
        """Drop events that are recorded."""
        if held := self._attempts.get(attempt):
            while held.outbox and held.outbox[0].seq <= cursor:
                held.outbox.popleft()
            if held.over and not held.outbox:
                del self._attempts[attempt]

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Let the attempt's script go on."""
        running = self._attempts.get(attempt)
        if running is not None and running.asked is not None and not running.over:
            running.answers[name] = value
            running.asked = None
            self._schedule_next(attempt)

    def ask_again(self, attempt: AttemptId) -> None:
        """Repeat an unanswered request."""
        running = self._attempts[attempt]
        if running.asked is not None and not running.over:
            self._emit(attempt, running.asked)

    def advance(self, to_s: float, until: Callable[[], bool]) -> None:
        """Process events that are due until `to_s`, or until a condition holds."""
        while self._due and self._due[0][0] <= to_s and not until():
            at_s, _, attempt, payload = heapq.heappop(self._due)
            self.clock.advance(at_s)
            self._happen(attempt, payload)
        if not until():
            self.clock.advance(to_s)

    def _schedule_next(self, attempt: AttemptId) -> None:
        delay_s, payload = next(
            self._attempts[attempt].script,
            (0.0, Lost("the script ended without an outcome")),
        )
        heapq.heappush(self._due, (self.clock.now() + delay_s, next(self._order), attempt, payload))

    def _happen(self, attempt: AttemptId, payload: Payload) -> None:
        running = self._attempts.get(attempt)
        if running is None or running.over:
            return  # killed in the meantime
        if running.frozen:
            running.held_back.append(payload)
            return
        self._emit(attempt, payload)
        if isinstance(payload, Outcome):
            return
        if running.stop_requested and self._obedient and isinstance(payload, Reported):
            self._emit(attempt, StoppedEarly())
        elif isinstance(payload, (SuggestRequested, StudyRequested)):
            running.asked = payload
        else:
            self._schedule_next(attempt)

    def _emit(self, attempt: AttemptId, payload: Payload) -> None:
        running = self._attempts[attempt]
        running.seq += 1
        event = Event(attempt, running.seq, payload)
        running.outbox.append(event)
        if isinstance(payload, Outcome):
            running.over = True
            self._running.pop(attempt, None)
        if running.listener is not None:
            running.listener.hear(event)
            if running.over:
                running.listener.fill_slots()


class SimulatedExecutor:
    """Runs scripts in virtual time. Attempts beyond the slots are queued."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        clock: VirtualClock | None = None,
        slots: int = 4,
        obedient: bool = True,
        cluster: SimulatedCluster | None = None,
        handover_s: float = 0.0,
    ) -> None:
        """Use `cluster`, or a new one that follows `script`; see `Executor` for `handover_s`."""
        if cluster is None:
            if script is None or clock is None:
                raise TypeError("without a cluster, a script and a clock are needed")
            cluster = SimulatedCluster(
                script,
                clock=clock,
                slots=slots,
                obedient=obedient,
            )
        self.cluster = cluster
        self.handover_s = handover_s
        self._parallelism: int | None = None
        self._token = cluster.token
        self._waiting: OrderedDict[AttemptId, Launch] = OrderedDict()
        self._ready: list[Event] = []

    def capacity(self) -> Capacity:
        """Return one imaginary node with a CPU for each slot."""
        total = {"CPU": float(self.cluster.slots), "memory": 2.0**30}
        free = {**total, "CPU": float(self.cluster.free_slots)}
        return capacity_of(
            [
                NodeInfo(
                    "simulated",
                    "simulated",
                    "simulated",
                    total,
                    free,
                )
            ]
        )

    def slots(self) -> int:
        """Return the number of slots."""
        return self.cluster.slots

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Adopt the cluster's attempts, unless a larger token has taken them over."""
        self._token = token
        if token < self.cluster.token:
            return
        self.cluster.take_over(token, cursors)
        for attempt, cursor in cursors.items():
            held = self.cluster.get(attempt)
            if held is None:
                self._ready.append(
                    Event(
                        attempt,
                        cursor + 1,
                        Lost("it runs nowhere", "gone"),
                    )
                )
                continue
            held.listener = self
            self._ready += [event for event in held.outbox if event.seq > cursor]
            self.cluster.ask_again(attempt)

    def heartbeats(self) -> Collection[AttemptId]:
        """Return all attempts that are not frozen."""
        own = [(attempt, self._own(attempt)) for attempt in self.cluster.running]
        running = [attempt for attempt, held in own if held is not None and not held.frozen]
        return [*running, *self._waiting]

    def health_error(self) -> str:
        """Return no error."""
        return ""

    def launch(self, launch: Launch) -> None:
        """Start the launch's script, now or when a slot is free."""
        self._waiting[launch.attempt] = launch
        self._parallelism = launch.parallelism
        self.fill_slots()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return due events; advance the clock if there are none."""
        self.fill_slots()
        if not self._ready:
            self.cluster.advance(
                self.cluster.clock.now() + timeout_s,
                until=lambda: bool(self._ready),
            )
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Make the cluster drop recorded events."""
        for attempt, cursor in cursors.items():
            if self._own(attempt) is not None:
                self.cluster.acknowledge(attempt, cursor)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Let the attempt's script go on."""
        if self._own(attempt) is not None:
            self.cluster.answer(attempt, name, value)

    def answers(self, attempt: AttemptId) -> Mapping[str, ParamValue | bytes]:
        """Return the answers that the attempt has received."""
        held = self.cluster.get(attempt)
        return held.answers if held is not None else {}

    def stop(self, attempt: AttemptId) -> None:
        """Stop the attempt at its next report; one that waits for a slot stops now."""
        if self._drop_waiting(attempt):
            self._ready.append(Event(attempt, 1, StoppedEarly()))
        elif held := self._own(attempt):
            held.stop_requested = True

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt now."""
        if self._drop_waiting(attempt):
            self._ready.append(
                Event(
                    attempt,
                    1,
                    Lost("killed before a slot was free"),
                )
            )
        elif (held := self._own(attempt)) and not held.over:
            self.cluster.lose(attempt, Lost("killed"))

    def limit_workers(self, most: int | None) -> None:
        """Do nothing: slots are no workers."""

    def close(self) -> None:
        """End this executor's attempts."""
        for attempt in self.cluster.running:
            self.kill(attempt)
        self.leave()

    def leave(self) -> None:
        """Leave the cluster running."""
        self._waiting.clear()
        self._ready.clear()

    def hear(self, event: Event) -> None:
        """Receive an event of one of this executor's attempts."""
        self._ready.append(event)

    def fill_slots(self) -> None:
        """Start queued launches in free slots, unless another executor took the cluster over."""
        while self._waiting and self._token >= self.cluster.token and self._may_begin:
            self.cluster.start(self._waiting.popitem(last=False)[1], self)

    @property
    def _may_begin(self) -> bool:
        is_allowed = self._parallelism is None or len(self.cluster.running) < self._parallelism
        return is_allowed and self.cluster.free_slots > 0

    def _own(self, attempt: AttemptId) -> _SimulatedExecution | None:
        held = self.cluster.get(attempt)
        if held is None or held.listener is not self or self._token < self.cluster.token:
            return None
        return held

    def _drop_waiting(self, attempt: AttemptId) -> bool:
        return self._waiting.pop(attempt, None) is not None
