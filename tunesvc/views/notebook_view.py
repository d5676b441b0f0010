"""A running study in a notebook's cell: one block of HTML that is replaced on progress."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from tunesvc.coordinator.progress_events import LiveTrial, Progress, ProgressEvent
from tunesvc.util.formatting import duration, number, parameters
from tunesvc.views.live import SCROLLED, describe, step_text

EVERY_S = 0.5
"""Minimum seconds between two drawings: each is sent to the browser."""
RUNNING_MAX = 8
NOTES = 6


def in_notebook() -> bool:
    """Return True if this process is the kernel of a notebook."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookView:
    """Implements `progress_events.Observer`. A context manager; draws a last time on exit."""

    def __init__(
        self,
        title: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`title`: the study's name."""
        self._title = title
        self._clock = clock
        self._phase = "starting"
        self._progress: Progress | None = None
        self._ending = ""
        """Description of the end of the run, once it has ended."""
        self._events: deque[str] = deque(maxlen=NOTES)
        self._drawn_s = -EVERY_S
        self._handle: Any = None

    def __enter__(self) -> NotebookView:
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._phase = ""
        self._draw()

    def progress(self, progress: Progress) -> None:
        """Show this progress at the next drawing."""
        self._progress, self._phase = progress, ""
        self._draw_if_due()

    def on_event(self, event: ProgressEvent) -> None:
        """Show an event at the next drawing; transient ones are left out."""
        if event.kind == "phase":
            self._phase = event.text
        elif event.kind == "over":
            self._ending = event.text
        elif event.kind in SCROLLED:
            self._events.append(describe(event))
        self._draw_if_due()

    def _draw_if_due(self) -> None:
        if self._clock() - self._drawn_s >= EVERY_S:
            self._draw()

    def _draw(self) -> None:
        ipython: Any = import_module("IPython.display")  # in a notebook it is there
        self._drawn_s = self._clock()
        shown = ipython.HTML(self.render())
        if self._handle is None:
            self._handle = ipython.display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def render(self) -> str:
        """Return the view as HTML, in the notebook's own colours and without scripts."""
        p = self._progress
        phase = f"{self._phase} …" if self._phase else ""
        headline = self._ending or " ".join(filter(None, ("" if p is None else p.state, phase)))
        parts = [f"<div><strong>{_text(self._title)}</strong> {_text(headline)}</div>"]
        if p is not None:
            parts += [_bar(p.fraction)]
            if not self._ending:
                parts += [_counts(p), _running(p)]
            parts += [_best(p)]
        parts += [f'<div style="opacity: .75">{_text(line)}</div>' for line in self._events]
        style = "font: 14px/1.5 system-ui, sans-serif; max-width: 720px"
        return f'<div style="{style}">{"".join(parts)}</div>'


def _bar(fraction: float) -> str:
    full = f"{100 * min(1.0, fraction):.1f}%"
    return (
        f'<div role="progressbar" aria-valuenow="{100 * fraction:.0f}" aria-valuemin="0" '
        'aria-valuemax="100" style="height: 6px; border-radius: 3px; '
        'background: rgb(128 128 128 / .25); margin: 6px 0">'
        '<div style="height: 6px; border-radius: 3px; background: #12a594; '
        f'width: {full}"></div></div>'
    )


def _counts(p: Progress) -> str:
    of = f" of {p.budget_trials}" if p.budget_trials else ""
    parts = [
        f"{p.done}{of} trials",
        f"{p.complete} complete",
        f"{p.pruned} pruned",
        f"{p.failed} failed",
    ]
    if p.stopped:
        parts.append(f"{p.stopped} stopped")
    parts.append(f"{len(p.running)} running")
    if p.queued:
        parts.append(f"{len(p.queued)} queued")
    parts += [duration(p.elapsed_s)]
    if p.left_s is not None:
        parts.append(f"{duration(p.left_s)} left")
    return f'<div style="opacity: .75">{_text(" · ".join(parts))}</div>'


def _best(p: Progress) -> str:
    if p.best is None:
        return ""
    values = ", ".join(number(value) for value in p.best.values)
    shown = f"best {values} · trial {p.best.number} · {parameters(p.best.params)}"
    return f'<div style="margin: 4px 0">{_text(shown)}</div>'


def _running(p: Progress) -> str:
    rows = "".join(_row(trial) for trial in p.live[:RUNNING_MAX])
    if not rows:
        return ""
    heads = "".join(f'<th style="{_CELL_STYLE}">{head}</th>' for head in _HEADS)
    style = "border-collapse: collapse; color: inherit; font: inherit; margin: 4px 0"
    return f'<table style="{style}"><thead><tr>{heads}</tr></thead>{rows}</table>'


_CELL_STYLE = "text-align: right; padding: 0 10px"
_HEADS = ("trial", "step", "value", "time")


def _row(trial: LiveTrial) -> str:
    cells = (
        str(trial.number),
        step_text(trial),
        number(trial.value),
        duration(trial.elapsed_s),
    )
    columns = "".join(f'<td style="{_CELL_STYLE}">{_text(cell)}</td>' for cell in cells)
    return f"<tr>{columns}</tr>"


def _text(text: str) -> str:
    return html.escape(text)
