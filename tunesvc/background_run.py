"""A run in the background of this process, as `Tunable.start` begins it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tunesvc.coordinator.progress_events import Observer
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import TuneError
from tunesvc.study import Study
from tunesvc.views.notebook_view import NotebookView, in_notebook

if TYPE_CHECKING:
    from tunesvc.db.engine.database import Database


class BackgroundRun:
    """A study that runs in a thread, while a notebook or program continues.

    As the last expression of a cell it shows itself, until the run has ended. The process of a
    program lives until then; the restart of a notebook's kernel ends the run in order.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[threading.Event, Observer], Study],
        database: Callable[[], Database],
        resume: str,
    ) -> None:
        """Begin a run.

        Args:
            name: of the study.
            run: runs the study until it ends or the event is set; the observer watches it.
            database: returns the study's database.
            resume: code that continues the study.
        """
        self.name = name
        self._run = run
        self._database = database
        self._interrupt = threading.Event()
        self._view = NotebookView(
            name, database, "`stop()` ends the run", resume, self._interrupt, self.stop
        )
        self._result: Future[Study] = Future()
        self._result.set_running_or_notify_cancel()
        threading.Thread(target=self._complete, name=f"tune {name}").start()
        if in_notebook():
            threading.Thread(target=self._end_with_kernel, daemon=True).start()

    def __repr__(self) -> str:
        return f"<BackgroundRun of study {self.name!r}: {self._state()}>"

    def _repr_html_(self) -> str:
        """Return HTML: the study as it is now."""
        return self._view.html()

    def _ipython_display_(self) -> None:
        """Show the run live in a notebook's cell; elsewhere IPython prints it."""
        if not in_notebook():
            raise NotImplementedError
        self.show()

    def __await__(self) -> Generator[Any, None, Study]:
        """Wait in an event loop: `study = await run`. Cancelling it leaves the run alone."""
        return asyncio.wrap_future(self._result).__await__()

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
        study = Study(self.name, self._database())
        _ = study.view
        return study

    def show(self) -> None:
        """Show the run in a notebook's cell, and keep it up to date; elsewhere print its state."""
        if in_notebook():
            self._view.show()
        else:
            sys.stdout.write(f"{self!r}\n")

    def stop(self) -> None:
        """Ask the run to end and return at once. What is recorded is kept, and can be resumed."""
        self._interrupt.set()

    def wait(self, timeout: float | None = None) -> Study:
        """Return the study once the run has ended.

        Args:
            timeout: longest time to wait, in seconds.

        Raises:
            TimeoutError: the run has not ended by then; it continues.
            KeyboardInterrupt: the cell was interrupted, or Ctrl-C pressed; the run continues.
            StudyFailed, SpecError, StudyExists, StudyBusy, UnsatisfiableRequest: see `run`.
        """
        try:
            return self._result.result(timeout)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"only the waiting was interrupted: study {self.name!r} continues in the "
                "background, and `stop()` of its run ends it"
            ) from None

    def _complete(self) -> None:
        try:
            study = self._run(self._interrupt, self._view)
        except BaseException as error:  # noqa: BLE001  # raised where the run is waited for
            try:
                self._view.end(error)
            finally:  # also if the view cannot be drawn
                self._result.set_exception(error)
        else:
            try:
                self._view.end()
            finally:
                self._result.set_result(study)

    def _end_with_kernel(self) -> None:
        """End the run in order when the kernel ends: this thread outlives the main one."""
        threading.main_thread().join()
        self.stop()

    def _state(self) -> str:
        if not self._result.done():
            state = "stopping" if self._interrupt.is_set() else "running"
        elif (error := self._result.exception()) is None:
            state = "ended"
        else:
            state = f"ended by {type(error).__name__}"
        try:
            with translate_unavailable():
                counts = self.study.view.counts
        except TuneError:  # not stored yet, or the database does not answer
            return state
        return f"{state}, {counts.done} trials finished, {counts.running} running"
