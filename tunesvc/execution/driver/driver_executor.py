"""The Executor on Ray in another process, the driver, which can be replaced. See `driver_main`.

Ray ends its driver a minute after the cluster's head is lost, and a local Ray ends with its driver.
The coordinator must survive both. Once the driver is up, nothing here waits for it: commands are
messages, and queries return the driver's last message. Several executors may share a driver. Each
belongs to one thread. Imports no Ray.
"""

from __future__ import annotations

import queue
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesvc.errors import ExecutorError, UnsatisfiableRequest
from tunesvc.execution.driver.driver_messages import (
    Cluster,
    DriverHeartbeat,
    EventBatch,
    ExecutorCall,
    HeartbeatBatch,
    JobPayload,
    Method,
    StartupRefused,
)
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.supervisor import DriverEnded
from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Event,
    Job,
    Launch,
    Lost,
    Outcome,
    StoppedEarly,
)
from tunesvc.execution.ray.dispatch_state import HANDOVER_S
from tunesvc.spec import ParamValue

UNRESPONSIVE_S = 10.0
"""After this long without an answer from Ray the driver counts as unhealthy."""


@dataclass(slots=True)
class _Continuation:
    """State of an attempt, from which the next driver can continue."""

    launch: Launch | None
    """None after it was sent to a driver."""
    delivered: int = 0
    """Number of the last event delivered."""
    acknowledged: int = 0
    """Number of the last event recorded."""
    is_finished: bool = False
    """True if its outcome was delivered. The attempt is forgotten when that is acknowledged."""
    calls: dict[ExecutorCall, None] = field(default_factory=dict)
    """Repeatable calls about it in order, without duplicates."""


class DriverExecutor:
    """Runs the attempts of one job on Ray, through a driver process. See `Executor`."""

    handover_s = HANDOVER_S

    def __init__(self, job: Job, launcher: RayLauncher) -> None:
        """Register the job with the launcher's driver, and wait until its Ray is up.

        Raises:
            ExecutorError, SpecError: see `RayExecutor`.
        """
        self._launcher, self._clock = launcher, launcher.clock
        self._ready: list[Event] = []
        self._attempts: dict[AttemptId, _Continuation] = {}
        self._heartbeats: set[AttemptId] = set()
        self._token: int | None = None
        self._driver: DriverProcess | None = None
        self._cluster: Cluster | None = None
        self._unanswered_s = 0.0
        self._received_s = self._heartbeat_s = self._clock.now()
        self._health_error = self._exit_reason = self._ray_error = ""
        self._closed = False
        self._registration = launcher.register_job(job)
        self._await_driver()

    # --- the protocol -----------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Return the total resources of the cluster, as of a few seconds ago."""
        return self._latest().capacity

    def slots(self) -> int:
        """Return how many attempts may be launched at a time, as of a few seconds ago.

        See `Executor.slots`.
        """
        latest = self._latest()
        if latest.refusal:
            raise UnsatisfiableRequest(latest.refusal)
        return latest.slots

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Adopt attempts of an earlier coordinator. All later drivers act under this token too."""
        self._token = token
        for attempt, cursor in cursors.items():
            self._attempts[attempt] = _Continuation(None, cursor, cursor)
        self._call("adopt", token, dict(cursors))

    def heartbeats(self) -> Collection[AttemptId]:
        """Return the attempts with a heartbeat.

        Return all while unhealthy, because heartbeats could not arrive.
        """
        unfinished = [attempt for attempt, known in self._attempts.items() if not known.is_finished]
        heartbeats = set(unfinished) if self.health_error() else self._heartbeats
        self._heartbeats = set()
        return [attempt for attempt in unfinished if attempt in heartbeats]

    def health_error(self) -> str:
        """Return what is wrong with the driver or its Ray, and what is done about it."""
        self._receive_all(0.0)
        if self._health_error:
            return self._health_error
        now = self._clock.now()
        ray_silent_s = now - self._heartbeat_s + self._unanswered_s
        silent_s = max(now - self._received_s, ray_silent_s)
        if silent_s >= UNRESPONSIVE_S:
            return (
                f"Ray has not answered for more than {UNRESPONSIVE_S:g} s; what runs is waited for"
            )
        return self._ray_error

    def launch(self, launch: Launch) -> None:
        """Send the attempt to the driver, or to the next one if there is none now."""
        attempt = self._attempts[launch.attempt] = _Continuation(launch)
        self._heartbeats.add(launch.attempt)
        self._send_launch(attempt)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events not delivered yet. Waits up to `timeout_s` for the first."""
        deadline_s = self._clock.now() + timeout_s
        self._receive_all(0.0)
        while not self._ready and (left_s := deadline_s - self._clock.now()) > 0:
            self._receive_all(left_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget recorded events."""
        for attempt, cursor in cursors.items():
            if known := self._attempts.get(attempt):
                known.acknowledged = max(known.acknowledged, cursor)
                if known.is_finished and known.acknowledged >= known.delivered:
                    del self._attempts[attempt]
        if cursors:
            self._call("acknowledge", dict(cursors))

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value that an attempt has asked for."""
        self._call_about(attempt, "answer", name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop. One that was not sent to a driver ends at once."""
        if not self._cancel_unsent(attempt, StoppedEarly()):
            self._call_about(attempt, "stop")

    def kill(self, attempt: AttemptId) -> None:
        """Kill the attempt's process. One that was not sent to a driver ends at once."""
        if not self._cancel_unsent(attempt, Lost("killed before a worker was free")):
            self._call_about(attempt, "kill")

    def limit_workers(self, most: int | None) -> None:
        """End idle workers while there are more, from now on. A later driver has none."""
        self._call("limit_workers", most)

    def close(self) -> None:
        """End all attempts.

        If no other job uses the driver, end it too, and wait for that with a timeout.
        """
        self._finish("close")

    def leave(self) -> None:
        """Leave the driver, which ends if no other job uses it.

        Attempts that can outlive it stay.
        """
        self._finish("leave")

    # --- attempts ---------------------------------------------------------------------------------

    def _send_launch(self, attempt: _Continuation) -> None:
        if attempt.launch is not None and self._call("launch", attempt.launch):
            attempt.launch = None

    def _cancel_unsent(self, attempt: AttemptId, outcome: Outcome) -> bool:
        """Finish an attempt that was not sent to a driver. Return False if it was sent."""
        known = self._attempts.get(attempt)
        if known is None or known.launch is None:
            return False
        known.launch = None
        self._deliver(known, Event(attempt, 1, outcome))
        return True

    def _call_about(self, attempt: AttemptId, method: Method, *arguments: Any) -> None:
        """Call the executor about a live attempt, also in each later driver."""
        known = self._attempts.get(attempt)
        if known is not None and not known.is_finished:
            call = self._make_call(method, attempt, *arguments)
            known.calls[call] = None
            self._send(call)

    def _receive(self, event: Event) -> None:
        known = self._attempts.get(event.attempt)
        if known is None or known.is_finished:
            return
        self._heartbeats.add(event.attempt)
        if isinstance(event.payload, Lost):
            # Numbered here: an earlier driver may have delivered more than this one knows of.
            lost = self._classify_loss(known, event.payload)
            event = replace(event, seq=known.delivered + 1, payload=lost)
        if event.seq > known.delivered:
            self._deliver(known, event)

    def _classify_loss(self, known: _Continuation, lost: Lost) -> Lost:
        """Count an attempt that ended with the previous driver's Ray as lost with its node.

        Then it counts against the limit for lost nodes: a trial that crashes Ray must not be
        retried for ever.
        """
        if lost.kind == "gone" and self._exit_reason and known.delivered:
            return Lost(f"its Ray is gone ({self._exit_reason})", "node")
        return lost

    def _deliver(self, known: _Continuation, event: Event) -> None:
        known.delivered = event.seq
        known.is_finished = isinstance(event.payload, Outcome)
        self._ready.append(event)

    # --- the driver -------------------------------------------------------------------------------

    def _await_driver(self) -> None:
        try:
            while self._driver is None:
                driver, message = self._registration.messages.get()
                if isinstance(message, StartupRefused):
                    raise message.error()
                if isinstance(message, DriverEnded):
                    raise ExecutorError(f"Ray did not start: its driver {message.reason}")
                self._handle(driver, message)
        except BaseException:
            self.close()
            raise

    def _latest(self) -> Cluster:
        self._receive_all(0.0)
        if self._cluster is None:
            raise AssertionError("the constructor waits for the first message")
        return self._cluster

    def _receive_all(self, timeout_s: float) -> None:
        """Handle all messages. If there are none, wait up to `timeout_s` for the first."""
        messages = self._registration.messages
        try:
            first = messages.get(timeout=timeout_s) if timeout_s else messages.get_nowait()
            self._handle(*first)
            while True:
                self._handle(*messages.get_nowait())
        except queue.Empty:
            return

    def _handle(
        self,
        driver: DriverProcess | None,
        message: JobPayload | DriverHeartbeat | DriverEnded,
    ) -> None:
        self._received_s = self._clock.now()
        match message:
            case EventBatch(events):
                for event in events:
                    self._receive(event)
            case DriverHeartbeat(unanswered_s):
                self._unanswered_s, self._heartbeat_s = unanswered_s, self._received_s
            case HeartbeatBatch(alive, ray_error):
                self._ray_error = ray_error
                self._heartbeats.update(alive)
            case Cluster():
                self._cluster = message
                if self._driver is None and driver is not None:
                    self._on_driver_ready(driver)
            case StartupRefused(_, text):
                self._health_error = f"Ray cannot be reached: {text.rstrip('.')}; trying again"
            case DriverEnded(reason):
                self._on_driver_exit(reason)

    def _on_driver_ready(self, driver: DriverProcess) -> None:
        """Send a new driver all attempts and commands, in the original order."""
        self._driver, self._health_error, self._ray_error = driver, "", ""
        self._unanswered_s, self._heartbeat_s = 0.0, self._clock.now()
        adopted = {}
        for attempt, known in self._attempts.items():
            if known.launch is None:
                # Not `delivered`: workers must keep events that are not recorded. Duplicates are
                # dropped on arrival.
                adopted[attempt] = known.acknowledged
        if adopted or self._token is not None:
            self._call("adopt", self._token or 0, adopted)
        for known in self._attempts.values():
            self._send_launch(known)
            for call in known.calls:
                self._send(call)

    def _on_driver_exit(self, reason: str) -> None:
        if self._driver is not None:
            self._driver, self._exit_reason = None, reason
            self._health_error = f"the Ray driver is gone ({reason}); connecting again"
        elif not self._health_error.startswith("Ray cannot be reached"):
            self._health_error = f"the Ray driver cannot be started again ({reason}); trying again"

    def _call(self, method: Method, *arguments: Any) -> bool:
        """Call the executor in the driver. Return False if there is no driver now."""
        return self._send(self._make_call(method, *arguments))

    def _make_call(self, method: Method, *arguments: Any) -> ExecutorCall:
        return ExecutorCall(self._registration.begin.number, method, arguments)

    def _send(self, call: ExecutorCall) -> bool:
        if self._driver is None:
            return False
        self._driver.send(call)
        return True

    def _finish(self, method: Method) -> None:
        if not self._closed:
            self._closed, self._driver = True, None
            self._launcher.unregister_job(self._registration, self._make_call(method))
