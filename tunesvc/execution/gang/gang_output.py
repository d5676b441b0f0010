"""Sends the output of a gang's process to the trial's log, through the process that runs the trial.

Once a process of Ray has the trial, its output no longer goes to Ray's logs but to files of a
spool, as that of the trial's process does. Imports Ray when it is used.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from tunesvc.execution import ray_internals
from tunesvc.execution.executor import AttemptId
from tunesvc.execution.gang.gang_home import GangHome
from tunesvc.execution.output import output_capture
from tunesvc.execution.output.output_capture import OutputCapture
from tunesvc.execution.output.spool import Spool


@dataclass(frozen=True, slots=True)
class GangProcess:
    """A process of a gang, other than that of its trial."""

    label: str
    """Begins its lines in the trial's log, such as `rank 1`."""
    node_id: str
    """Ray's ID of its node."""
    spool: str
    """Folder on that node that keeps its output."""


class _GangOutput:
    """The output of this process, for one attempt after the other."""

    def __init__(self) -> None:
        import ray

        context = ray.get_runtime_context()
        logs = ray_internals.log_folder() or tempfile.mkdtemp(prefix="tunesvc-")
        self._node_id = context.get_node_id()
        self._spool = Spool(Path(logs, f"tunesvc-{os.getpid()}"))
        bundle = ray_internals.bundle_index()
        self.label = f"process {os.getpid()}" if bundle is None else f"bundle {bundle}"
        self._target: tuple[GangHome, AttemptId] | None = None
        OutputCapture(self._spool).begin(self._send)

    def send_to(self, home: GangHome, attempt: AttemptId) -> None:
        """Send the output to this attempt from now on."""
        if self._target != (home, attempt):
            self._target = home, attempt
            # Its files are known then, however early it dies. Not in this thread, which may be
            # unpickling the arguments of a call.
            threading.Thread(target=self._send, args=("stdout", "", 0), daemon=True).start()

    def _send(self, stream: str, text: str, end: int) -> None:
        if self._target is None:
            return
        home, attempt = self._target
        process = GangProcess(self.label, self._node_id, str(self._spool.folder))
        try:
            home.call_attempt(attempt, "output", process, stream, text, end)
        except Exception:  # noqa: BLE001  # the attempt has ended, and this process ends with it
            self._target = None


_lock = threading.Lock()
_output: _GangOutput | None = None


def send_output(home: GangHome, attempt: AttemptId) -> None:
    """Send this process's output to an attempt. Repeatable; nothing in the trial's own process."""
    global _output  # a process has one
    if not ray_internals.is_worker():
        return
    with _lock:
        if _output is None:
            if output_capture.is_captured():
                return
            _output = _GangOutput()
        _output.send_to(home, attempt)


def label_output(label: str) -> None:
    """Begin the lines of this process with a label."""
    with _lock:
        if _output is not None:
            _output.label = label
