"""A worker's process on an agent's machine: the agent's end of its pipe.

The other end is `worker_process_main`. Commands and events travel as between Ray's workers and
their coordinator. The process and all that it starts end with the agent, because the pipe closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

from tunesvc.execution.executor import AttemptId, Job
from tunesvc.execution.output.spool import Remains, read_remains
from tunesvc.execution.worker.worker_protocol import PollRequest, PollResponse, WorkerCommand

_START = (
    "import sys; from tunesvc.execution.agents import worker_process_main as main;"
    " main.main(int(sys.argv[1]))"
)
_SECRETS = ("TUNE_TOKEN", "TUNE_DATABASE_URL", "TUNE_DATABASE_PASSWORD_FILE")
"""Variables that are the agent's, and not for the code that it runs."""
_EXIT_S = 5.0


@dataclass(frozen=True, slots=True)
class StartWorker:
    """The first message to the process."""

    job: Job
    folder: str
    """The user's directory on this machine."""
    node: str
    """The agent's name."""
    devices: tuple[str, ...]
    spool: str
    """Folder for the process's output."""


class WorkerProcess:
    """A process that runs attempts one after the other. See `Worker`."""

    def __init__(self, start: StartWorker) -> None:
        """Start the process."""
        self.job = start.job
        self.is_reusable = True
        """True if another attempt may run in it."""
        self._spool = start.spool
        self._lock = threading.Lock()
        self._number = self._answered = 0
        """Numbers of the newest poll and of the last one that was answered."""
        self._commands: list[tuple[int, WorkerCommand]] = []
        self._cursors: dict[AttemptId, tuple[int, int]] = {}
        self._connection, its = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", _START, str(its.fileno())],
            env=_environment(start),
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
        its.close()
        with suppress(OSError):  # it has died: `receive` will say so
            self._connection.send(start)

    @property
    def is_alive(self) -> bool:
        """True if the process has not ended."""
        return self._process.poll() is None

    def command(self, command: WorkerCommand) -> None:
        """Send a command with a new poll. Any thread may call this."""
        with self._lock:
            if command.kind == "run":
                self._cursors = {command.attempt: (0, 0)}
            self._commands.append((self._number + 1, command))
            self._poll()

    def receive(self) -> PollResponse:
        """Wait for the answer to a poll, without a limit.

        Raises:
            EOFError: the process has ended.
        """
        try:
            number, response = self._connection.recv()
        except OSError:
            raise EOFError from None
        with self._lock:
            self._answered = number
            self._commands = [one for one in self._commands if one[0] > number]
        self.is_reusable = response.is_reusable
        return response  # type: ignore[no-any-return]

    def acknowledge(self, attempt: AttemptId, seq: int) -> None:
        """Let the worker forget events that the server has, and poll it for more.

        A newer poll than the answered one is open already, and its answer follows.
        """
        with self._lock:
            self._cursors = {attempt: (seq, seq)}
            if self._answered == self._number:
                self._poll()

    def forget(self, attempt: AttemptId) -> None:
        """Let the worker forget an attempt whose outcome the server has."""
        with self._lock:
            self._cursors = {}
            self._commands.append((self._number + 1, WorkerCommand("forget", attempt)))

    def kill(self) -> None:
        """Kill the process and all that it started. Any thread may call this. Repeatable."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process, wait for its end, and free what it used. Repeatable."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        self._connection.close()

    def remains(self, positions: dict[str, int]) -> Remains:
        """Return what the dead process has written after these positions, and how it ended."""
        remains = read_remains(self._spool, positions)
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_EXIT_S)
            if not remains.end:
                end = f"was ended by {signal.Signals(-code).name}" if code < 0 else ""
                return Remains(remains.output, end or f"ended with exit code {code}")
        return remains

    def _poll(self) -> None:
        self._number += 1
        request = PollRequest(self._number, tuple(self._commands), dict(self._cursors))
        with suppress(OSError):  # it has died: `receive` will say so
            self._connection.send(request)


def _environment(start: StartWorker) -> dict[str, str]:
    variables = {name: text for name, text in os.environ.items() if name not in _SECRETS}
    variables |= start.job.environment.env
    if start.devices or start.job.resources.gpu == 0:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(start.devices)
    variables.setdefault("OMP_NUM_THREADS", str(max(1, int(start.job.resources.cpu))))
    Path(start.spool).mkdir(parents=True, exist_ok=True)
    return variables
