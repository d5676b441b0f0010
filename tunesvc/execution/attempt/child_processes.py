"""Reports from processes that an objective starts.

They write lines to a pipe, as programs of `command:` do.

A forked child cannot use its copy of the outbox: no thread empties it, and its locks may never be
released. A spawned child unpickles its trial. Imports no Ray.
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
from tunesvc.execution.attempt.report_pipe import LineReports, ReportPipe
from tunesvc.execution.supervision import scratch
from tunesvc.subprocess_trial import PipeChannel
from tunesvc.trial import Trial


class ChildProcesses:
    """The pipe of an attempt's child processes and the thread that reads it."""

    def __init__(
        self,
        trial: Trial,
        directory: Path,
        objectives: tuple[str, ...],
    ) -> None:
        """Pass the children's reports on to `trial`. `directory` is its scratch folder."""
        self._folder = scratch.make("children")
        self.channel = PipeChannel(
            self._folder / "reports",
            self._folder / "checkpoints",
            directory,
        )
        self.channel.checkpoints.mkdir()
        reports = LineReports(trial, self.channel.checkpoints, objectives)
        self._pipe = ReportPipe(self.channel.reports, reports)
        self._is_closed = False
        self._thread = threading.Thread(
            target=self._listen,
            name="tunesvc-children",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the child processes to stop."""
        self.channel.stop_mark.touch()

    @property
    def noticed_stop(self) -> bool:
        """True if a child process has seen the request to stop."""
        return self.channel.seen_mark.exists()

    def close(self) -> BadReport | None:
        """Read the remaining lines and close the pipe.

        Return the error of the first unreadable line.
        """
        self.channel.reports.unlink()
        self._is_closed = True
        with suppress(BlockingIOError):  # a full pipe has woken the thread already
            os.write(self._pipe.fileno(), b"\n")  # an empty line only wakes the thread
        self._thread.join()
        self._pipe.finish()
        self._pipe.close()
        scratch.remove(self._folder)
        return self._pipe.error

    def _listen(self) -> None:
        while not self._is_closed:
            select.select([self._pipe.fileno()], [], [])
            self._pipe.read()


def leave(error: BaseException | None) -> NoReturn:
    """End a forked child at the end of the objective.

    The rest of the attempt belongs to its parent.
    """
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
