"""Main program of a process that runs one attempt, see `objective_process`.

The objective runs in the main thread, where it may handle signals. Imports no Ray.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.executor import OutputLogged, Payload, Reported
from tunesvc.execution.objectives.objective_process import Answer, Task
from tunesvc.execution.objectives.objective_runner import ObjectiveRunner


class ConnectionSink:
    """Sends the events of an attempt to its worker. Any thread may call it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    is_recorded = False
    """False: only the worker learns which events are recorded."""

    def put(self, payload: Payload) -> None:
        """Send an event. Waits while the worker is behind."""
        with self._lock:
            self._connection.send(payload)

    def report(self, report: Reported) -> None:
        """Send a report."""
        self.put(report)

    def log(self, stream: str, text: str, end: int = 0) -> None:
        """Send a note."""
        self.put(OutputLogged(stream, text, end))


def main(descriptor: int) -> None:
    """Run the attempt that arrives at a descriptor, and send its events and outcome there."""
    faulthandler.enable(2, all_threads=True)
    connection = Connection(descriptor)
    task: Task = connection.recv()
    sink = ConnectionSink(connection)
    attempt = Attempt(
        task.job,
        task.launch,
        task.worker,
        sink,
        directory=task.directory,
    )
    runner = ObjectiveRunner(task.job, task.folder, is_copy=task.is_copy)
    listener = threading.Thread(
        target=_listen,
        args=(connection, attempt),
        daemon=True,
    )
    listener.start()
    # A forked child can report only through the pipe, which must be there before it.
    is_over = threading.Event()
    os.register_at_fork(before=lambda: is_over.is_set() or attempt.open_to_children())
    outcome = runner(attempt)
    is_over.set()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the objective may have closed or replaced it
            stream.flush()
    sink.put(outcome)


def _listen(connection: Connection, attempt: Attempt) -> None:
    """Pass the worker's messages to the attempt. End this process if the worker is gone."""
    try:
        while True:
            message: Answer | str = connection.recv()
            if isinstance(message, Answer):
                attempt.answer(message.name, message.value)
            else:
                attempt.stop()
    except (EOFError, OSError):
        os._exit(1)
