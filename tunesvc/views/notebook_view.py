"""A running study in notebooks' cells: a card that is replaced about once a second.

It needs no server and no extra. The replaced card is part of the output, so a saved notebook shows
its last state. Where anywidget is installed, a Stop button stands below the card of a background
run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.errors import DatabaseError, StudyFailed, StudyNotFound

if TYPE_CHECKING:
    from tunesvc.db.engine.database import Database
    from tunesvc.views.stop_button import StopButton
    from tunesvc.views.study_card import CardContent, CardReader

EVERY_S = 1.0
"""Seconds between two cards."""
COST_SHARE = 0.05
"""Most of the time that is spent on cards: a large study has fewer of them."""
PAUSE_MAX_S = 10.0
"""Most seconds between two cards, even if the database let one wait for long."""


def in_notebook() -> bool:
    """Return True if this process is the kernel of a notebook."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookView:
    """Implements `progress_events.Observer`. As a context manager it shows a run in one cell."""

    def __init__(
        self,
        name: str,
        database: Callable[[], Database],
        ending: str,
        resume: str,
        interrupt: threading.Event,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Create a view.

        Args:
            name: of the study.
            database: returns it; called in a thread of the view.
            ending: what ends the run, as a clause.
            resume: code that continues the study later.
            interrupt: set once a stop was requested.
            stop: called by a Stop button; without it there is none.
        """
        self._name = name
        self._database = database
        self._ending = ending
        self._resume = resume
        self._interrupt = interrupt
        self._stop = stop
        self._phase = "starting"
        self._is_running = False
        self._problem = ""
        self._ended = threading.Event()
        self._drawing = threading.Lock()
        self._display_id = f"tunesvc-{uuid4().hex}"
        self._reader: CardReader | None = None
        self._content: CardContent | None = None
        self._button: StopButton | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NotebookView:
        self.show()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error)

    # --- as an observer ---------------------------------------------------------------------------

    def progress(self, progress: Progress) -> None:
        """Read the study from now on: it is stored, and this run owns it."""
        self._is_running, self._phase = True, ""

    def on_event(self, event: ProgressEvent) -> None:
        """Show a phase; all other events are read from the database."""
        if event.kind == "phase":
            self._phase = event.text

    # --- in a notebook ----------------------------------------------------------------------------

    def show(self) -> None:
        """Show the card in the current cell, and keep it up to date until the run has ended.

        All cells that show it have the same content.
        """
        with self._drawing:
            _display().display(self._bundle(), raw=True, display_id=self._display_id)
            if self._ended.is_set():
                return
            if self._stop is not None and find_spec("anywidget"):
                if self._button is None:
                    self._button = import_module("tunesvc.views.stop_button").StopButton(self._stop)
                self._button.show(self._button_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._refresh, daemon=True)
                self._thread.start()

    def end(self, error: BaseException | None = None) -> None:
        """Show the last state. `error`: what ended the run, if anything."""
        with self._drawing:
            self._ended.set()
            self._phase = ""
            if error is not None and not isinstance(error, (StudyFailed, KeyboardInterrupt)):
                self._problem = f"{type(error).__name__}: {error}"
            if self._thread is None:
                return
            self._update()
            if self._button is not None:
                self._button.refresh("ended")
                empty = {"text/plain": "", "text/html": ""}
                _display().update_display(empty, raw=True, display_id=self._button_id)
                self._button.close()

    def html(self) -> str:
        """Return the study as it is now."""
        from tunesvc.views import study_card

        trouble = self._read()
        if self._content is None:
            state = "not started" if self._problem else "starting"
            return study_card.card_of_nothing(self._name, state, self._phase, self._problem)
        resume = f"`{self._resume}` continues"
        if self._ended.is_set():
            footer = "" if self._content.study.is_at_rest else f"{resume} the study"
            return study_card.card(self._content, problem=self._problem or trouble, footer=footer)
        phase = "stopping once everything is recorded" if self._interrupt.is_set() else self._phase
        footer = f"{study_card.as_of()}; {self._ending}, {resume} it after a restart of the kernel"
        return study_card.card(self._content, phase=phase, problem=trouble, footer=footer)

    def _read(self) -> str:
        """Read the study, if it is there; return why it could not be read."""
        if not self._is_running:
            return ""
        from tunesvc.db.engine.database_errors import translate_unavailable
        from tunesvc.views.study_card import CardReader

        try:
            with translate_unavailable():
                self._reader = self._reader or CardReader(self._database(), self._name)
                self._content = self._reader.read()
        except StudyNotFound:
            self._content = None
        except DatabaseError as error:
            return f"{error}; the state below is the last one that was read"
        return ""

    def _refresh(self) -> None:
        pause_s = EVERY_S
        while not self._ended.wait(pause_s):
            started_s = time.monotonic()
            is_first = self._content is None  # which also imports, and connects to the database
            with self._drawing:
                if self._ended.is_set():
                    return
                self._update()
                if self._button is not None:
                    self._button.refresh("stopping" if self._interrupt.is_set() else "running")
            cost_s = time.monotonic() - started_s
            pause_s = EVERY_S if is_first else min(max(EVERY_S, cost_s / COST_SHARE), PAUSE_MAX_S)

    def _update(self) -> None:
        _display().update_display(self._bundle(), raw=True, display_id=self._display_id)

    def _bundle(self) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": f"<study {self._name!r}>"}

    @property
    def _button_id(self) -> str:
        return f"{self._display_id}-stop"


def _display() -> Any:
    return import_module("IPython.display")  # in a notebook it is there
