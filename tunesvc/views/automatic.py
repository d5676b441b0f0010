"""The view of a run, chosen by where Python runs: a notebook, a terminal, or a pipe."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext

from tunesvc.coordinator.progress_events import Observer
from tunesvc.views.lines import PlainLines
from tunesvc.views.live import LiveView
from tunesvc.views.notebook_view import NotebookView, in_notebook
from tunesvc.views.terminal import err


def automatic_view(title: str, interrupt: threading.Event) -> AbstractContextManager[Observer]:
    """Return a context manager that shows a run: live in a notebook or terminal, otherwise as
    lines.

    Writes to standard error, like other progress bars, so that standard output belongs to the
    program.

    Args:
        title: heading of the view.
        interrupt: set when a stop is requested.
    """
    if in_notebook():
        return NotebookView(title)
    console = err()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(title, console, interrupt)
    return nullcontext(PlainLines(stream=sys.stderr))
