"""Runs each attempt in the main thread of a process of its own, for `isolation: process`.

The worker stays the attempt's address: it relays events from the process to its own outbox, and
answers and the request to stop to the process. The other end is `objective_main`.

Imports no Ray.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from tunesvc.errors import Pruned
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.executor import (
    STUDY,
    Failed,
    Finished,
    Job,
    Launch,
    Lost,
    Outcome,
    Payload,
    StoppedEarly,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.objectives.source_digest import digest_of
from tunesvc.execution.supervision.supervised_process import (
    FATAL_SIGNALS,
    exit_code,
    exit_watch,
    signal_name,
    supervised,
)
from tunesvc.spec import ParamValue

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from tunesvc.execution.objectives import objective_main as main; main.main(int(sys.argv[1]))"
)
_POLL_S = 0.05
_EXIT_S = 10.0
"""Time for the interpreter to shut down after the outcome."""


@dataclass(frozen=True, slots=True)
class Task:
    """The first message to the process."""

    job: Job
    launch: Launch
    worker: WorkerInfo
    folder: Path
    """The user's directory on this node."""
    is_copy: bool
    directory: Path
    """The attempt's scratch folder."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A message to the process: the answer to its question."""

    name: str
    value: ParamValue | bytes


STOP = "stop"
"""A message to the process: the attempt is asked to stop."""


class ProcessRunner:
    """Runs the attempts of a job, each in a process of its own."""

    leaves_process_clean = True

    def __init__(
        self,
        job: Job,
        folder: Path,
        *,
        is_copy: bool,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` is added to that of this process. See `ObjectiveRunner` for the rest."""
        self._job = job
        self._folder = folder
        self._is_copy = is_copy
        self._environment = environment

    def source_digest(self) -> str:
        """Return the digest of the code that the next attempt runs."""
        return digest_of(self._job, self._folder)

    def __call__(self, attempt: Attempt) -> Outcome:
        """Run the objective in a process, relay its events, and return its outcome."""
        ours, its = Pipe()
        arguments = [sys.executable, "-u", "-c", _START, str(its.fileno()), json.dumps(sys.path)]
        environment = {**os.environ, **self._environment}
        task = Task(
            self._job,
            attempt.launch,
            attempt.worker,
            self._folder,
            self._is_copy,
            attempt.directory,
        )
        with (
            ours,
            supervised(
                arguments,
                environment,
                attempt.directory,
                [its.fileno()],
            ) as process,
        ):
            its.close()
            relay = _Relay(attempt, process, ours)
            relay.send(task)
            relay.run()
        return relay.outcome or _lost(relay.code)


class _Relay:
    """Passes messages between an attempt's process and the worker."""

    def __init__(
        self,
        attempt: Attempt,
        process: subprocess.Popen[bytes],
        connection: Connection,
    ) -> None:
        self.outcome: Outcome | None = None
        self.code: int | None = None
        self._attempt = attempt
        self._process = process
        self._connection = connection
        self._is_connected = True
        self._has_sent_stop = False

    def run(self) -> None:
        """Relay until the process has ended, or is late to end after its outcome."""
        end_at_s: float | None = None
        with exit_watch(self._process) as watched:
            while self.code is None:
                self.code = exit_code(self._process)
                self._receive()
                if self._attempt.has_stop:
                    self._send_stop()
                if self.outcome is not None:
                    end_at_s = end_at_s or time.monotonic() + _EXIT_S
                    if time.monotonic() >= end_at_s:
                        return
                if self.code is None:
                    sources = [self._connection.fileno()] if self._is_connected else []
                    select.select([*sources, *watched], [], [], _POLL_S)

    def send(self, message: Task | Answer | str) -> None:
        """Send a message. The process may have died."""
        with suppress(OSError):
            self._connection.send(message)

    def _send_stop(self) -> None:
        if not self._has_sent_stop:
            self._has_sent_stop = True
            self.send(STOP)

    def _receive(self) -> None:
        """Handle all messages that have arrived."""
        try:
            while self._is_connected and self._connection.poll():
                self._handle(self._connection.recv())
        except (EOFError, OSError):
            self._is_connected = False

    def _handle(self, payload: Payload) -> None:
        match payload:
            case SuggestRequested() | StudyRequested():
                self._ask(payload)
            case Finished() | StoppedEarly() | Failed() | Lost():
                self.outcome = payload
            case _:
                self._attempt.relay(payload)

    def _ask(self, question: SuggestRequested | StudyRequested) -> None:
        """Ask the coordinator in the worker's name, and pass on the answer."""
        try:
            if isinstance(question, SuggestRequested):
                value = self._attempt.ask(question.name, question.distribution)
                self.send(Answer(question.name, value))
            else:
                self.send(Answer(STUDY, self._attempt.ask_for_study()))
        except Pruned:
            self._send_stop()


def _lost(code: int | None) -> Lost:
    """Return the outcome of a process that ended without one."""
    name = signal_name(code or 0)
    end = f"was ended by {name}" if name else f"ended with exit code {code}"
    if name in {fatal.name for fatal in FATAL_SIGNALS.values()}:
        end += "; its stack is in the log"
    if name == "SIGKILL":
        end += ", perhaps because memory ran out"
    return Lost(f"the objective's process {end}")
