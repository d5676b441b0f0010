"""Starts and ends the process that sends a study's trials to trackers, and shows what it says.

A process of its own, because a tracker's library takes seconds to import, and a call that hangs can
only be ended with its process. The coordinator's process never waits for it, except at the end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.db.study_records import StudyRecord
from tunesvc.queries.rows import StudyView
from tunesvc.spec.sections.components import Logger

DRAIN_S = (30.0, 15.0)
"""Longest time to send what is left when a run has ended, and to wait for one answer."""
INTERRUPTED_S = (3.0, 1.5)
"""The same when it was interrupted."""
_MODULE = "tunesvc.integrations.loggers.logger_main"
_TICK_S = 0.1
_KILL_S = 5.0
"""Time that the process gets beyond its own limit."""


@dataclass(frozen=True, slots=True)
class SendingOrder:
    """The task of the process."""

    database_url: str | None
    """None for the embedded one."""
    study: str
    study_id: int
    folder: str | None
    """Folder of the study: relative paths and modules of loggers are found there."""
    loggers: Sequence[Mapping[str, Any]]
    again: bool = False
    """Send also what the trackers should have."""
    is_command: bool = False
    """A user waits for it, and wants to know what was sent."""

    @classmethod
    def of(
        cls,
        database: Database,
        study: StudyRecord | StudyView,
        loggers: Sequence[Logger],
        *,
        again: bool = False,
        is_command: bool = False,
    ) -> SendingOrder:
        """Return the order to send a study to these loggers."""
        url = None if database.is_embedded else database.url
        entries = [logger.model_dump(mode="json") for logger in loggers]
        return cls(url, study.name, study.study_id, study.source_dir, entries, again, is_command)

    @classmethod
    def read(cls, line: str) -> SendingOrder:
        """Read an order that was written."""
        return cls(**json.loads(line))

    def written(self) -> str:
        """Return the order as a line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


class LoggerProcess:
    """The process, and a thread that reads its notes."""

    def __init__(self, order: SendingOrder, on_note: Callable[[str], None]) -> None:
        is_debugged = os.environ.get("TUNE_DEBUG") == "1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if is_debugged else subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the coordinator, which ends it in order
        )
        self._study = order.study
        self._on_note = on_note
        self._reader = threading.Thread(target=self._read, name="loggers", daemon=True)
        self._reader.start()
        self._write(order.written())

    @property
    def has_ended(self) -> bool:
        """True if it has died, or done its work."""
        return self._process.poll() is not None

    def end(
        self,
        limit_s: float,
        patience_s: float,
        interrupt: threading.Event | None = None,
    ) -> bool:
        """Let it send what is left; return True if nothing is left.

        Args:
            limit_s: the longest that it may take.
            patience_s: the longest that a tracker may take for an answer.
            interrupt: shortens both to `INTERRUPTED_S` when it is set.
        """
        try:
            self._end_within(limit_s, patience_s, interrupt or threading.Event())
        finally:
            code = self._process.poll()
            self._process.kill()
            self._process.wait()
        self._reader.join(_KILL_S)
        if code not in (0, 1):
            self._on_note(
                f"loggers: their process {'hangs' if code is None else 'has died'}; "
                f"`tune send {self._study}` sends what is missing"
            )
        return code == 0

    def _end_within(self, limit_s: float, patience_s: float, interrupt: threading.Event) -> None:
        """Return when it has ended, or is late."""
        self._write(f"end {limit_s} {patience_s}\n")
        late_at = time.monotonic() + limit_s + _KILL_S
        while not self.has_ended and time.monotonic() < late_at:
            if (limit_s, patience_s) != INTERRUPTED_S and interrupt.is_set():
                self._end_within(*INTERRUPTED_S, interrupt)
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK_S)

    def _write(self, line: str) -> None:
        pipe = self._process.stdin
        with suppress(OSError):  # it has died
            if pipe is not None:
                pipe.write(line)
                pipe.flush()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._on_note(line.rstrip("\n"))


class LoggedRun:
    """Starts the process with the first step of a run, and shows its notes among the run's events.

    Passes everything on.
    """

    def __init__(self, inner: Observer, order: SendingOrder) -> None:
        self._inner = inner
        self._order = order
        self._process: LoggerProcess | None = None
        self._notes: SimpleQueue[str] = SimpleQueue()

    def progress(self, progress: Progress) -> None:
        """Pass a snapshot on, and show what was noted."""
        self._inner.progress(progress)
        if self._process is None:
            self._process = LoggerProcess(self._order, self._notes.put)
        self._show_notes()

    def on_event(self, event: ProgressEvent) -> None:
        """Pass an event on."""
        self._inner.on_event(event)

    def end(self, limit_s: float, patience_s: float, interrupt: threading.Event) -> None:
        """Send what is left, see `LoggerProcess.end`."""
        if self._process is None:
            return
        names = ", ".join(logger["name"] for logger in self._order.loggers)
        self._inner.on_event(ProgressEvent("phase", f"sending trials to {names}"))
        try:
            self._process.end(limit_s, patience_s, interrupt)
        finally:
            self._show_notes()

    def _show_notes(self) -> None:
        with suppress(Empty):
            while True:
                self._inner.on_event(ProgressEvent("warning", self._notes.get_nowait()))


@contextmanager
def logged(
    database: Database,
    record: StudyRecord,
    loggers: Sequence[Logger],
    observer: Observer,
    interrupt: threading.Event,
) -> Iterator[Observer]:
    """Send the trials of a study to its loggers within the block, and what is left after it."""
    if not loggers:
        yield observer
        return
    run = LoggedRun(observer, SendingOrder.of(database, record, loggers))
    limits = INTERRUPTED_S
    try:
        yield run
        limits = INTERRUPTED_S if interrupt.is_set() else DRAIN_S
    finally:
        run.end(*limits, interrupt)
