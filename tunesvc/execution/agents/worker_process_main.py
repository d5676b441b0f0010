"""Main program of a worker's process, see `worker_process`. Imports no Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from tunesvc.data.prepared_data import PreparedData
from tunesvc.data.trial_data import provide
from tunesvc.execution.agents.worker_process import StartWorker
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import Job
from tunesvc.execution.worker.worker import Worker
from tunesvc.execution.worker.worker_protocol import PollRequest

_POLL_S = 60.0
_TOKEN = 0
"""The agent's own: it starts a process for each lease that it has lost."""


class AgentHost:
    """An agent. See `WorkerHost`."""

    is_remote = True

    def __init__(self, start: StartWorker) -> None:
        self._start = start

    def locate(self, job: Job, spool: str) -> WorkerInfo:
        """Return the location of this process."""
        return WorkerInfo(self._start.node, os.getpid(), self._start.devices, spool=spool)

    def spool_folder(self) -> Path:
        """Return the folder for this process's output, which the agent removes."""
        return Path(self._start.spool)

    def environment(self) -> Mapping[str, str]:
        """Return nothing: processes of objectives inherit this one's variables."""
        return {}

    @property
    def shared_parts(self) -> Mapping[str, Any]:
        """Nothing: agents have no object store."""
        return {}

    def provide_data(self, prepared: PreparedData) -> None:
        """Let trials map the files that the agent has brought."""
        provide(prepared, prepared.folder, {})

    def end_process(self, info: WorkerInfo) -> None:
        """End this process and all that it started."""
        _end()


def main(descriptor: int) -> None:
    """Run the attempts that arrive at a descriptor, until it is closed."""
    connection = Connection(descriptor)
    start: StartWorker = connection.recv()
    worker = Worker(start.job, start.folder, _TOKEN, host=AgentHost(start))
    lock = threading.Lock()

    def answer(request: PollRequest) -> None:
        response = worker.poll(_TOKEN, request, _POLL_S)
        with lock:
            connection.send((request.number, response))

    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            _end()
        threading.Thread(target=answer, args=(request,), name="poll", daemon=True).start()


def _end() -> NoReturn:
    os.killpg(0, signal.SIGKILL)  # this process too
    os._exit(1)
