"""A running study as text or JSON lines. Each implements `coordinator.progress_events.Observer`."""

from __future__ import annotations

import sys
from typing import TextIO

from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.util.characters import visible
from tunesvc.util.formatting import duration, number
from tunesvc.views.live import in_one_line
from tunesvc.views.terminal import plain, to_json

EVERY_S = 10.0
"""Seconds of the study between two progress lines."""


class PlainLines:
    """One line per event, and regular progress lines: for pipes, logs and notebooks."""

    def __init__(self, study: str = "", stream: TextIO | None = None) -> None:
        """`study`: prefix of each line, if there are several studies."""
        self._before = f"{visible(study)}: " if study else ""
        self._stream = stream or sys.stdout
        self._written_s = 0.0

    def progress(self, progress: Progress) -> None:
        """Write a progress line, unless the last one is recent."""
        if progress.elapsed_s - self._written_s >= EVERY_S:
            self._written_s = progress.elapsed_s
            self._write(_progress_line(progress))

    def on_event(self, event: ProgressEvent) -> None:
        """Write an event. The line begins with its kind, so the text need not repeat it."""
        trial = "" if event.number is None else f"trial {event.number}: "
        self._write(f"{event.kind:8} {trial}{in_one_line(event.text)}".rstrip())

    def _write(self, line: str) -> None:
        self._stream.write(f"{self._before}{line}\n")
        self._stream.flush()


def _progress_line(p: Progress) -> str:
    of = f"/{p.budget_trials}" if p.budget_trials else ""
    stopped = f", {p.stopped} stopped" if p.stopped else ""
    parts = [
        f"{p.fraction:.0%}",
        f"{p.done}{of} trials ({p.pruned} pruned, {p.failed} failed{stopped})",
    ]
    parts.append(f"{len(p.running)} running")
    if p.queued:
        parts.append(f"{len(p.queued)} queued")
    if p.paused:
        parts.append(f"{p.paused} paused")
    if p.best is not None:
        parts.append(f"best {', '.join(map(number, p.best.values))} (trial {p.best.number})")
    if p.gpus_total:
        parts.append(f"GPUs {p.gpus_busy:g}/{p.gpus_total:g}")
    parts.append(f"{duration(p.elapsed_s)} elapsed")
    if p.left_s is not None:
        parts.append(f"{duration(p.left_s)} left")
    if p.forecast:
        parts.append(p.forecast)
    return f"{'progress':8} " + ", ".join(parts)


class JsonLines:
    """One JSON object per line; its `event` is `note` or `progress`. `end` comes from the
    command."""

    def __init__(self, study: str | None = None, stream: TextIO | None = None) -> None:
        """`study`: name in each line; None for events that concern several studies."""
        self._study = study
        self._stream = stream or sys.stdout
        self._written_s = -1.0

    def progress(self, progress: Progress) -> None:
        """Write progress, at most once per second of the study."""
        if progress.elapsed_s - self._written_s >= 1.0:
            self._written_s = progress.elapsed_s
            self.write("progress", progress)

    def on_event(self, event: ProgressEvent) -> None:
        """Write an event."""
        self.write("note", event)

    def write(self, event: str, value: object) -> None:
        """Write one event."""
        self._stream.write(
            to_json(
                {
                    "event": event,
                    "study": self._study,
                    **plain(value),
                }
            )
            + "\n"
        )
        self._stream.flush()
