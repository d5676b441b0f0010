"""Sends the output of a gang's process to the trial's log, through the process that runs the trial.

Once a process of Ray has the trial, its output no longer goes to Ray's logs but to files of a
spool, as that of the trial's process does. Imports Ray when it is used.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesvc.errors import BadReport
from tunesvc.execution import ray_internals
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.gang.gang_home import GangHome
from tunesvc.execution.output import output_capture
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.output.spool import Spool

_RETRY_S = 0.5
"""Interval between attempts to send a piece of output."""


@dataclass(frozen=True, slots=True)
class GangProcess:
    """A process of a gang, other than that of its trial."""

    label: str
    """Begins its lines in the trial's log, such as `rank 1`."""
    node_id: str
    """Ray's ID of its node."""
    spool: str
    """Folder on that node that keeps its output."""
    begins: Mapping[str, int] = field(default_factory=dict)
    """Position of each stream at which the output for the attempt begins; 0 if absent."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The attempt that gets the output."""

    home: GangHome
    attempt: AttemptId
    begins: Mapping[str, int]


class ProcessOutput:
    """The output of this process, for one attempt after the other."""

    def __init__(self, node_id: str, spool: Spool) -> None:
        """Send the output that a spool on this node has."""
        self.label = ""
        self._node_id = node_id
        self._spool = spool
        self._target: _Target | None = None

    def send_to(self, home: GangHome, attempt: AttemptId, label: str) -> None:
        """Send the output to this attempt from now on, its lines with this label at first."""
        target = self._target
        if target is not None and (target.home, target.attempt) == (home, attempt):
            return
        self.label = label
        self._target = _Target(home, attempt, self._spool.ends())
        # Its files are known then, however early it dies. Not in this thread, which may be
        # unpickling the arguments of a call.
        threading.Thread(target=self.send, args=("stdout", "", 0), daemon=True).start()

    def send(self, stream: str, text: str, end: int) -> None:
        """Send a piece of output, again and again until the attempt has it or has ended.

        What follows waits in the spool.
        """
        target = self._target
        while target is not None and target is self._target:
            folder = str(self._spool.folder)
            process = GangProcess(self.label, self._node_id, folder, target.begins)
            try:
                target.home.call_attempt(target.attempt, "output", process, stream, text, end)
            except Exception as error:  # noqa: BLE001  # Ray has many for a lost connection
                if not _is_final(error):
                    time.sleep(_RETRY_S)
                elif self._target is target:
                    self._target = None
            else:
                return


def _is_final(error: Exception) -> bool:
    """Return True if the attempt has ended, or the process that ran it."""
    from ray.exceptions import ActorUnavailableError, RayActorError

    is_death = isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
    return is_death or isinstance(error, BadReport)


def _capture() -> ProcessOutput:
    """Capture the output of this process."""
    import ray

    logs = ray_internals.log_folder() or tempfile.mkdtemp(prefix="tunesvc-")
    spool = Spool(Path(logs, f"tunesvc-{os.getpid()}"))
    output = ProcessOutput(ray.get_runtime_context().get_node_id(), spool)
    OutputCapture(spool).begin(output.send)
    return output


def _label() -> str:
    bundle = ray_internals.bundle_index()
    return f"process {os.getpid()}" if bundle is None else f"bundle {bundle}"


_lock = threading.Lock()
_output: ProcessOutput | None = None


def send_output(home: GangHome, attempt: AttemptId) -> None:
    """Send this process's output to an attempt. Repeatable; nothing in the trial's own process."""
    global _output  # a process has one
    if not ray_internals.is_worker():
        return
    with _lock:
        if _output is None:
            if output_capture.is_captured():
                return
            _output = _capture()
        _output.send_to(home, attempt, _label())


def label_output(label: str) -> None:
    """Begin the lines of this process with a label."""
    with _lock:
        if _output is not None:
            _output.label = label
