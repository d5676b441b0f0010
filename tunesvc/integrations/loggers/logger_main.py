"""The process that sends a study's trials to its trackers, beside the coordinator.

It gets an order as a line of JSON on standard input, and prints notes for the user, a line each. It
ends after the line `end LIMIT PATIENCE`, or when its input is closed: what is left is then sent,
for so many seconds at most. A second such line shortens that. See `runtime.logger_process`.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from tunesvc.db.engine.database import open_database
from tunesvc.errors import TuneError
from tunesvc.integrations.loggers.logger_thread import LoggerThread
from tunesvc.runtime.logger_process import SendingOrder
from tunesvc.spec.sections.components import Logger

SILENT_S = 20.0
"""Time without an answer after which that is said."""
ORPHAN_S = (10.0, 5.0)
"""Limit and patience when the coordinator's process has died."""
_TICK_S = 0.1
_RENEW_S = 5.0
_NICE = 10
"""Trials and their coordinator come first."""


class LoggerMain:
    """Runs the threads of one order."""

    def __init__(self, order: SendingOrder, orders: IO[str], notes: IO[str]) -> None:
        self._order = order
        self._orders = orders
        self._notes = notes
        self._ending = threading.Event()
        self._limit_s, self._patience_s = ORPHAN_S

    def run(self) -> int:
        """Send until the end; return 0 if nothing is left."""
        threading.Thread(target=self._await_end, daemon=True).start()
        with open_database(self._order.database_url, migrate=False) as database:
            threads = [
                LoggerThread(
                    database,
                    self._order.study_id,
                    Logger.model_validate(entry),
                    self._say if self._order.is_command else self._say_while_running,
                    self._ending,
                    again=self._order.again,
                )
                for entry in self._order.loggers
            ]
            for thread in threads:
                thread.start()
            self._watch(threads)
            return max([self._conclude(thread) for thread in threads])

    def _await_end(self) -> None:
        while (line := self._orders.readline()).startswith("end "):
            self._limit_s, self._patience_s = map(float, line.split()[1:])
            self._ending.set()
        self._ending.set()

    def _watch(self, threads: list[LoggerThread]) -> None:
        """Return when all is sent, or when waiting for the rest is in vain."""
        said: set[str] = set()
        renewed_at = time.monotonic()
        ended_at: float | None = None
        while waiting := [thread for thread in threads if not thread.is_done]:
            now = time.monotonic()
            if ended_at is None and self._ending.is_set():
                ended_at = now
            if ended_at is not None and all(
                self._is_in_vain(thread, now - ended_at) for thread in waiting
            ):
                return
            for thread in waiting:
                if thread.silent_s > SILENT_S and thread.is_busy and thread.title not in said:
                    said.add(thread.title)
                    self._say(f"{thread.title}: no answer for {SILENT_S:g} s; the study continues")
            if now - renewed_at > _RENEW_S:
                renewed_at = now
                for thread in waiting:
                    with suppress(Exception):  # the database is away: the claim may be lost
                        thread.renew()
            time.sleep(_TICK_S)

    def _is_in_vain(self, thread: LoggerThread, ending_s: float) -> bool:
        """Return True if waiting longer at the end gives nothing."""
        is_stuck = min(thread.silent_s, ending_s) > self._patience_s
        return is_stuck or thread.has_failed_at_end or ending_s > self._limit_s

    def _conclude(self, thread: LoggerThread) -> int:
        """Say what is left; return whether anything is."""
        try:
            count = thread.count_unsent()
        except Exception:  # noqa: BLE001 - the database is away, or the study was deleted
            return 1
        if not count and (thread.is_done or not thread.problem):
            if self._order.is_command:
                self._say(f"{thread.title}: {thread.sent} finished trials sent, nothing is missing")
            return 0
        left = f"{count} finished trials are" if count != 1 else "1 finished trial is"
        left = left if count else "the newest reports are"
        command = f"`tune send {shlex.quote(self._order.study)}`"
        remedy = "" if self._order.is_command else f"; {command} sends what is missing"
        self._say(f"{thread.title}: {left} not there yet{remedy}")
        return 1

    def _say_while_running(self, text: str) -> None:
        comfort = ". The study continues, and what is missing follows"
        self._say(text if self._ending.is_set() else text + comfort)

    def _say(self, text: str) -> None:
        with suppress(OSError):  # the coordinator's process may be gone
            self._notes.write(text.replace("\n", " ") + "\n")
            self._notes.flush()


def main() -> None:
    """Carry out the order on standard input."""
    notes = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print
    order = SendingOrder.read(sys.stdin.readline())
    with suppress(OSError):
        os.nice(_NICE)
    if order.folder is not None and Path(order.folder).is_dir():
        os.chdir(order.folder)
    try:
        code = LoggerMain(order, sys.stdin, notes).run()
    except Exception as error:  # noqa: BLE001 - the user sees it, however the process fails
        kind = "" if isinstance(error, TuneError) else f"{type(error).__name__}: "
        notes.write(" ".join(f"loggers: {kind}{error}".split()) + "\n")
        code = 1
    notes.flush()
    os._exit(code)  # a thread may hang in a library, which may also wait at exit


if __name__ == "__main__":
    main()
