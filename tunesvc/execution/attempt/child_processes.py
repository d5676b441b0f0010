"""Reports from processes that an objective starts: they write lines to a pipe, as programs of `command:` do.

A forked child has a copy of the worker's memory, whose locks may be held for ever and whose outbox nothing empties; a
spawned one has its trial from a pickle. Imports no Ray.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tunesvc.errors import BadReport
from tunesvc.execution.attempt import scratch
from tunesvc.execution.attempt.report_pipe import LineReports, ReportPipe
from tunesvc.subprocess_trial import PipeChannel
from tunesvc.trial import Trial


class ChildProcesses:
    """The pipe of one attempt's child processes, and a thread that reads it."""

    def __init__(self, trial: Trial, directory: Path, objectives: tuple[str, ...]) -> None:
        """What they say goes to `trial`; `directory` is its scratch folder."""
        self._folder = scratch.make("children")
        self.channel = PipeChannel(self._folder / "reports", self._folder / "checkpoints", directory)
        self.channel.checkpoints.mkdir()
        reports = LineReports(trial, self.channel.checkpoints, objectives)
        self._pipe = ReportPipe(self.channel.reports, reports)
        self._is_over = False
        self._thread = threading.Thread(target=self._listen, name="tunesvc-children", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let them know that the trial has been asked to stop."""
        self.channel.stop_mark.touch()

    @property
    def noticed_stop(self) -> bool:
        """Whether one of them has seen that the trial has been asked to stop."""
        return self.channel.seen_mark.exists()

    def close(self) -> BadReport | None:
        """Take what is left, and nothing after that; return what could not be read."""
        self.channel.reports.unlink()
        self._is_over = True
        with suppress(BlockingIOError):  # it is full, so the thread is awake
            os.write(self._pipe.fileno(), b"\n")  # no report, only a reason to wake up
        self._thread.join()
        self._pipe.finish()
        self._pipe.close()
        scratch.remove(self._folder)
        return self._pipe.error

    def _listen(self) -> None:
        while not self._is_over:
            select.select([self._pipe.fileno()], [], [])
            self._pipe.read()


def leave(error: BaseException | None) -> NoReturn:
    """End a forked child that has come to the end of the objective: the rest is its parent's."""
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
