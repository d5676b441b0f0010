"""The Executor on Ray whose Ray lives in another process, which can be replaced: see `driver_main`.

Ray ends its driver a minute after the cluster's head is lost, and a local Ray ends with its driver; the coordinator
must survive both. Nothing here waits for the driver once it is up: commands are messages, and questions are answered
with what the driver said last. Several may share a driver. Meant for one thread. Imports no Ray.
"""

from __future__ import annotations

import queue
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesvc.errors import ExecutorError, UnsatisfiableRequest
from tunesvc.execution.driver.driver_messages import (
    Acknowledge,
    Adopt,
    AnswerCommand,
    AttemptEvents,
    AttemptHeartbeats,
    Close,
    Cluster,
    Command,
    DriverHeartbeat,
    Farewell,
    JobCommand,
    JobPayload,
    Kill,
    Leave,
    Start,
    StartupRefused,
    Stop,
    Wish,
)
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.supervisor import DriverEnded
from tunesvc.execution.executor import AttemptId, Capacity, Event, Job, Launch, Lost, Outcome, StoppedEarly
from tunesvc.execution.ray.dispatch_state import HANDOVER_S
from tunesvc.spec import ParamValue

QUIET_S = 10.0
"""So long without an answer of Ray is trouble, though not the driver's end yet."""


@dataclass(slots=True)
class _KnownAttempt:
    """What the next driver has to know of an attempt."""

    launch: Launch | None
    """As long as no driver was told to start it."""
    delivered: int = 0
    acknowledged: int = 0
    over: bool = False
    """Whether its outcome was delivered; forgotten when that is acknowledged."""
    wishes: dict[Wish, None] = field(default_factory=dict)
    """In order, each once."""


class RayProcess:
    """Runs the attempts of one job on Ray, through a driver process. See `Executor`."""

    handover_s = HANDOVER_S

    def __init__(self, job: Job, start: RayLauncher) -> None:
        """Have the driver of `start` run the job, and wait until its Ray is up.

        Raises:
            ExecutorError, SpecError: what `RayExecutor` raises.
        """
        self._start, self._clock = start, start.clock
        self._ready: list[Event] = []
        self._attempts: dict[AttemptId, _KnownAttempt] = {}
        self._signs: set[AttemptId] = set()
        self._token: int | None = None
        self._link: DriverProcess | None = None
        self._cluster: Cluster | None = None
        self._unanswered_s = 0.0
        self._heard_s = self._pulsed_s = self._clock.now()
        self._trouble = self._reason = self._trouble_there = ""
        self._closed = False
        self._seat = start.register_job(job)
        self._await_driver()

    # --- the protocol -----------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """What the cluster had in all when Ray was last asked, a few seconds ago."""
        return self._latest().capacity

    def slots(self) -> int:
        """How many attempts the cluster could hold when Ray was last asked. See `Executor.slots`."""
        latest = self._latest()
        if latest.refusal:
            raise UnsatisfiableRequest(latest.refusal)
        return latest.slots

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Go on with attempts of an earlier coordinator. Every driver to come acts under this token."""
        self._token = token
        self._attempts |= {attempt: _KnownAttempt(None, cursor, cursor) for attempt, cursor in cursors.items()}
        if self._link is not None:
            self._tell(self._link, Adopt(token, dict(cursors)))

    def alive(self) -> Collection[AttemptId]:
        """Those that gave a sign of life; all while there is trouble, for nobody would hear them."""
        known = [attempt for attempt, kept in self._attempts.items() if not kept.over]
        signs = set(known) if self.trouble() else self._signs
        self._signs = set()
        return [attempt for attempt in known if attempt in signs]

    def trouble(self) -> str:
        """What is wrong with the driver or its Ray, and that it is being mended."""
        self._take_in(0.0)
        if self._trouble:
            return self._trouble
        now = self._clock.now()
        quiet_s = max(now - self._heard_s, now - self._pulsed_s + self._unanswered_s)
        if quiet_s >= QUIET_S:
            return f"Ray has not answered for more than {QUIET_S:g} s; what runs is waited for"
        return self._trouble_there

    def launch(self, launch: Launch) -> None:
        """Hand the attempt to the driver; while there is none it waits for the next."""
        attempt = self._attempts[launch.attempt] = _KnownAttempt(launch)
        self._signs.add(launch.attempt)
        if self._link is not None:
            self._hand_over(self._link, attempt)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet; waits up to `timeout_s` for the first."""
        deadline = self._clock.now() + timeout_s
        self._take_in(0.0)
        while not self._ready and (left_s := deadline - self._clock.now()) > 0:
            self._take_in(left_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded."""
        for attempt, cursor in cursors.items():
            if kept := self._attempts.get(attempt):
                kept.acknowledged = max(kept.acknowledged, cursor)
                if kept.over and kept.acknowledged >= kept.delivered:
                    del self._attempts[attempt]
        if self._link is not None and cursors:
            self._tell(self._link, Acknowledge(dict(cursors)))

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value of a parameter that an attempt asked for."""
        self._wish(attempt, AnswerCommand(attempt, name, value))

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop; one that no driver was told of ends at once."""
        if not self._withdraw(attempt, StoppedEarly()):
            self._wish(attempt, Stop(attempt))

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; one that no driver was told of ends at once."""
        if not self._withdraw(attempt, Lost("killed before a worker was free")):
            self._wish(attempt, Kill(attempt))

    def close(self) -> None:
        """End all attempts; a driver that nobody else uses ends too, and is waited for, though not for ever."""
        self._end(Close())

    def leave(self) -> None:
        """Leave the driver, which ends when nobody else uses it; what can outlive it runs on."""
        self._end(Leave())

    # --- attempts -----------------------------------------------------------------------------------

    def _hand_over(self, link: DriverProcess, attempt: _KnownAttempt) -> None:
        if attempt.launch is not None:
            self._tell(link, Start(attempt.launch))
            attempt.launch = None

    def _withdraw(self, attempt: AttemptId, outcome: Outcome) -> bool:
        """End an attempt that was not handed over; whether there was such a one."""
        kept = self._attempts.get(attempt)
        if kept is None or kept.launch is None:
            return False
        kept.launch = None
        self._deliver(kept, Event(attempt, 1, outcome))
        return True

    def _wish(self, attempt: AttemptId, wish: Wish) -> None:
        kept = self._attempts.get(attempt)
        if kept is not None and not kept.over:
            kept.wishes[wish] = None
            if self._link is not None:
                self._tell(self._link, wish)

    def _hear(self, event: Event) -> None:
        kept = self._attempts.get(event.attempt)
        if kept is None or kept.over:
            return
        self._signs.add(event.attempt)
        if isinstance(event.payload, Lost):  # comes from the driver, which may know less than was delivered
            event = replace(event, seq=kept.delivered + 1, payload=self._classify_loss(kept, event.payload))
        if event.seq > kept.delivered:
            self._deliver(kept, event)

    def _classify_loss(self, kept: _KnownAttempt, lost: Lost) -> Lost:
        """An attempt that had begun and is not there for a new driver went with the Ray that ended under it.

        It counts against the limit for lost nodes: a trial that takes Ray down each time must not go on for ever.
        """
        if lost.kind == "gone" and self._reason and kept.delivered:
            return Lost(f"its Ray is gone ({self._reason})", "node")
        return lost

    def _deliver(self, kept: _KnownAttempt, event: Event) -> None:
        kept.delivered = event.seq
        kept.over = isinstance(event.payload, Outcome)
        self._ready.append(event)

    # --- the driver ---------------------------------------------------------------------------------

    def _await_driver(self) -> None:
        try:
            while self._link is None:
                link, message = self._seat.inbox.get()
                if isinstance(message, StartupRefused):
                    raise message.error()
                if isinstance(message, DriverEnded):
                    raise ExecutorError(f"Ray did not start: its driver {message.reason}")
                self._take(link, message)
        except BaseException:
            self.close()
            raise

    def _latest(self) -> Cluster:
        self._take_in(0.0)
        if self._cluster is None:
            raise AssertionError("the constructor waits for it")
        return self._cluster

    def _take_in(self, timeout_s: float) -> None:
        """Handle what has arrived; waits for the first when nothing has."""
        try:
            inbox = self._seat.inbox
            self._take(*(inbox.get(timeout=timeout_s) if timeout_s else inbox.get_nowait()))
            while True:
                self._take(*inbox.get_nowait())
        except queue.Empty:
            return

    def _take(self, link: DriverProcess | None, message: JobPayload | DriverHeartbeat | DriverEnded) -> None:
        self._heard_s = self._clock.now()
        match message:
            case AttemptEvents(events):
                for event in events:
                    self._hear(event)
            case DriverHeartbeat(unanswered_s):
                self._unanswered_s, self._pulsed_s = unanswered_s, self._heard_s
            case AttemptHeartbeats(alive, trouble):
                self._trouble_there = trouble
                self._signs.update(alive)
            case Cluster():
                self._cluster = message
                if self._link is None and link is not None:
                    self._on_driver_ready(link)
            case StartupRefused(_, text):
                self._trouble = f"Ray cannot be reached: {text.rstrip('.')}; trying again"
            case DriverEnded(reason):
                self._on_driver_exit(reason)

    def _on_driver_ready(self, link: DriverProcess) -> None:
        """Tell a driver all that it has to know, in the order in which it would have learned it."""
        self._link, self._trouble, self._trouble_there = link, "", ""
        self._unanswered_s, self._pulsed_s = 0.0, self._clock.now()
        # What was delivered but is not acknowledged must not be forgotten by the workers; it is left out when it
        # arrives again.
        adopted = {attempt: kept.acknowledged for attempt, kept in self._attempts.items() if kept.launch is None}
        if adopted or self._token is not None:
            self._tell(link, Adopt(self._token or 0, adopted))
        for kept in self._attempts.values():
            self._hand_over(link, kept)
            for wish in kept.wishes:
                self._tell(link, wish)

    def _on_driver_exit(self, reason: str) -> None:
        if self._link is not None:
            self._link, self._reason = None, reason
            self._trouble = f"the Ray driver is gone ({reason}); connecting again"
        elif not self._trouble.startswith("Ray cannot be reached"):
            self._trouble = f"the Ray driver cannot be started again ({reason}); trying again"

    def _tell(self, link: DriverProcess, command: Command) -> None:
        link.send(JobCommand(self._seat.begin.number, command))

    def _end(self, farewell: Farewell) -> None:
        if not self._closed:
            self._closed, self._link = True, None
            self._start.unregister_job(self._seat, farewell)
