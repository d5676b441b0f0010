"""A run in the background of this process, as `Tunable.start` begins it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tunesvc.errors import StudyNotFound

if TYPE_CHECKING:
    from tunesvc.study import Study


class BackgroundRun:
    """A study that runs in a thread, while a notebook or program continues.

    The process lives until the run has ended.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[threading.Event], Study],
        load: Callable[[], Study],
    ) -> None:
        """Begin a run.

        Args:
            name: of the study.
            run: runs the study until it ends or the event is set.
            load: returns the stored study.
        """
        self.name = name
        self._load = load
        self._interrupt = threading.Event()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"tune {name}")
        self._result = thread.submit(run, self._interrupt)
        thread.shutdown(wait=False)

    def __repr__(self) -> str:
        state = "running" if self.is_running else "ended"
        return f"<BackgroundRun of study {self.name!r}: {state}>"

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the study as it is now."""
        try:
            return self.study._repr_html_()
        except StudyNotFound:
            return f"<p>study <b>{self.name}</b> is starting</p>"

    @property
    def is_running(self) -> bool:
        """True until the run has ended."""
        return not self._result.done()

    @property
    def study(self) -> Study:
        """The study as it is stored now.

        Raises:
            StudyNotFound: it is not stored yet: Ray or the database is starting.
        """
        return self._load()

    def stop(self) -> None:
        """Ask the run to end and return at once. What is recorded is kept, and can be resumed."""
        self._interrupt.set()

    def wait(self, timeout: float | None = None) -> Study:
        """Return the study once the run has ended.

        Args:
            timeout: longest time to wait, in seconds.

        Raises:
            TimeoutError: the run has not ended by then; it continues.
            StudyFailed, SpecError, StudyExists, StudyBusy, UnsatisfiableRequest: see `run`.
        """
        return self._result.result(timeout)
