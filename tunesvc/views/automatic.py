"""The view of a run, chosen by where Python runs: a notebook, a terminal, or a pipe."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tunesvc.coordinator.progress_events import Observer
from tunesvc.db.engine.database import Database
from tunesvc.views.lines import PlainLines
from tunesvc.views.live import LiveView
from tunesvc.views.notebook_view import NotebookView, in_notebook
from tunesvc.views.terminal import err

_IN_A_CELL = "interrupting the cell ends the run in order"


def automatic_view(
    title: str,
    interrupt: threading.Event,
    database: Callable[[], Database],
) -> AbstractContextManager[Observer]:
    """Return a context manager that shows a run: live in a notebook or terminal, otherwise as
    lines.

    Writes to standard error, like other progress bars, so that standard output belongs to the
    program.

    Args:
        title: heading of the view.
        interrupt: set when a stop is requested.
        database: returns the study's database; called in another thread.
    """
    if in_notebook():
        return NotebookView(title, database, _IN_A_CELL, "resume=True", interrupt)
    console = err()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(title, console, interrupt)
    return nullcontext(PlainLines(stream=sys.stderr))
