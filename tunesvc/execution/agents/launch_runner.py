"""Runs one leased attempt in a worker's process, and sends its events to the server.

An event is acknowledged to the worker once the server has committed it. While the server is away
the worker's outbox keeps all events, and the attempt runs on.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tunesvc.db.agents.agent_messages import AgentEvent, HeldLease, LeasedLaunch, LeaseStatus
from tunesvc.errors import LeaseRefused, ServerAway
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.agent_server import AgentServer
from tunesvc.execution.agents.worker_process import WorkerProcess
from tunesvc.execution.executor import (
    AttemptId,
    Checkpointed,
    Failed,
    Finished,
    LossKind,
    Lost,
    Outcome,
    OutputLogged,
    Payload,
    StoppedEarly,
    StudyRequested,
)
from tunesvc.execution.worker.worker_protocol import WorkerCommand

T = TypeVar("T")

BACKOFF_S = (0.2, 10.0)
"""Shortest and longest delay before a call is repeated."""
_NO_STUDY = (
    "`trial.study.trials` is not there on agents: they get no other trials. "
    "Run the study on Ray, or leave it out"
)


class Backoff:
    """Delays that double, with jitter, so that agents do not call all at once."""

    def __init__(self) -> None:
        self._delay_s = BACKOFF_S[0]

    def next_s(self) -> float:
        """Return the next delay."""
        delay_s = self._delay_s * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        self._delay_s = min(BACKOFF_S[1], 2 * self._delay_s)
        return delay_s


class LaunchRunner:
    """One attempt, from its launch to its outcome at the server."""

    def __init__(self, server: AgentServer, leased: LeasedLaunch, checkpoints: Path) -> None:
        """Prepare the attempt.

        Args:
            server: gets its events.
            leased: the launch.
            checkpoints: folder of all checkpoints on this machine.
        """
        self.token = leased.token
        self.id = AttemptId(leased.trial_id, leased.attempt)
        self._server = server
        self._launch = wire.load_launch(leased.launch)
        self.number = self._launch.trial_number
        """The trial's number."""
        self.result = "was dropped"
        """Result, for people."""
        self.misfit = ""
        """Reason why this machine can run no trial of the study; empty if it can."""
        self._folder = checkpoints / str(self._launch.trial_number)
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None
        self._commands: list[WorkerCommand] = []
        """Messages that arrived before the process."""
        self._has_stop = False
        self._answers = 0
        self._sent = 0
        """Number of the last event that the server has."""
        self._positions: dict[str, int] = {}
        self._loss: tuple[str, LossKind] | None = None
        """Reason why this agent ends the attempt."""
        self._ended = threading.Event()
        """Set if the server gets no more events."""

    # --- from the agent -------------------------------------------------------------------------

    @property
    def held(self) -> HeldLease:
        """The lease as this agent knows it."""
        with self._lock:
            return HeldLease(self.token, self._has_stop, self._answers)

    def update(self, status: LeaseStatus) -> None:
        """Pass on what the coordinator asks of the attempt. Any thread may call this."""
        with self._lock:
            if status.stop and not self._has_stop:
                self._has_stop = True
                self._command(WorkerCommand("stop", self.id))
            for answer in status.answers:
                if answer.number > self._answers:
                    self._answers = answer.number
                    values = answer.name, answer.value
                    self._command(WorkerCommand("answer", self.id, values))

    def drop(self) -> None:
        """Kill the attempt and send nothing more: its lease was lost. Any thread may call this."""
        self._ended.set()
        self._kill()

    def lose(self, reason: str, kind: LossKind) -> None:
        """Kill the attempt, and send that as its outcome. Any thread may call this."""
        self._loss = reason, kind
        self._kill()

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _command(self, command: WorkerCommand) -> None:
        if self._process is None:
            self._commands.append(command)
        else:
            self._process.command(command)

    # --- in a slot's thread ---------------------------------------------------------------------

    def run(self, start: Callable[[], WorkerProcess]) -> None:
        """Run the attempt in a process, until the server has its outcome or refuses it."""
        try:
            if self._loss:
                self._deliver_last(Lost(*self._loss))
                return
            self._restore()
            process = start()
            self._begin(process)
            self._relay(process)
        except LeaseRefused:
            self.drop()
        except Exception as error:  # noqa: BLE001  # the trial fails, not the agent
            self._kill()
            self._deliver_last(Failed("error", f"the agent could not run it: {error}"))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _restore(self) -> None:
        """Copy the checkpoint that the attempt starts from to this machine."""
        if self._launch.checkpoint is not None:
            path = self._retry(lambda: self._server.download(self.token, self._folder))
            if path is not None:
                self._launch = replace(self._launch, checkpoint=str(path))

    def _begin(self, process: WorkerProcess) -> None:
        process.command(WorkerCommand("run", self.id, (self._launch,)))
        with self._lock:
            self._process = process
            for command in self._commands:
                process.command(command)
        if self._ended.is_set() or self._loss:
            process.kill()

    def _relay(self, process: WorkerProcess) -> None:
        while True:
            try:
                response = process.receive()
            except EOFError:
                self._on_death(process)
                return
            events = [
                event
                for attempt, batch in response.events
                for event in batch
                if attempt == self.id and event[0] > self._sent
            ]
            if events:
                self._deliver(events)
                if isinstance(events[-1][1], (Outcome, StudyRequested)):
                    process.forget(self.id)
                    return
            process.acknowledge(self.id, self._sent)

    def _on_death(self, process: WorkerProcess) -> None:
        """Send the output that the dead process left, then the loss."""
        process.is_reusable = False
        remains = process.remains(self._positions)
        rest: list[Payload] = [
            OutputLogged(stream, text) for stream, text in remains.output.items() if text
        ]
        reason, kind = self._loss or (f"its worker {remains.end or 'died'}", "lost")
        rest.append(Lost(reason, kind))
        self._deliver([(self._sent + 1 + index, one) for index, one in enumerate(rest)])

    def _deliver_last(self, outcome: Outcome) -> None:
        try:
            self._deliver([(self._sent + 1, outcome)])
        except LeaseRefused:
            self.drop()

    def _deliver(self, events: Sequence[tuple[int, Payload]]) -> None:
        """Send events, and before each checkpoint's event the checkpoint."""
        batch: list[AgentEvent] = []
        for seq, payload in events:
            if isinstance(payload, Checkpointed):
                self._send(batch)
                batch = []
                payload = self._upload(payload)
            elif isinstance(payload, StudyRequested):
                payload = Failed("error", _NO_STUDY)
                self._kill()
            elif isinstance(payload, Failed) and payload.kind == "entrypoint":
                payload = self._give_back(payload)
            elif isinstance(payload, OutputLogged) and payload.end:
                self._positions[payload.stream] = payload.end
            if isinstance(payload, Outcome):
                self.result = _describe(payload)
            batch.append(AgentEvent(seq, wire.dump_payload(payload)))
        self._send(batch)

    def _give_back(self, failed: Failed) -> Lost:
        """Blame this machine, which may lack a package, rather than the study."""
        self.misfit = failed.message
        return Lost(f"this agent cannot run it: {failed.message}", "gone")

    def _upload(self, saved: Checkpointed) -> Payload:
        try:
            path = self._retry(lambda: self._server.upload(self.token, Path(saved.path)))
        except OSError as error:
            note = f"[tunesvc: a checkpoint could not be sent to the server: {error}]\n"
            return OutputLogged("stderr", note)
        return Checkpointed(path, saved.step)

    def _send(self, batch: Sequence[AgentEvent]) -> None:
        if batch:
            status = self._retry(lambda: self._server.send(self.token, batch))
            self._sent = batch[-1].number
            self.update(status)

    def _retry(self, call: Callable[[], T]) -> T:
        """Repeat a call until the server answers.

        Raises:
            LeaseRefused: the lease was lost, or the agent gives up.
        """
        backoff = Backoff()
        while not self._ended.is_set():
            try:
                return call()
            except ServerAway:
                self._ended.wait(backoff.next_s())
        raise LeaseRefused("the lease was lost while the server was away")


def _describe(outcome: Outcome) -> str:
    match outcome:
        case Finished(metrics):
            values = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
            return f"finished: {values}" if values else "finished"
        case StoppedEarly():
            return "was stopped early"
        case Failed(_, message):
            return f"failed: {message.splitlines()[0] if message else 'without a message'}"
        case Lost(message, _):
            return f"was lost: {message}"
