"""Progress events of a run as log records, for an operator of a coordinator that runs for weeks."""

from __future__ import annotations

import logging

from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent
from tunesvc.util.logs import get_logger

_logger = get_logger("tunesvc.study")

_WARNINGS = frozenset({"failed", "warning", "error"})
"""Kinds of events that an operator should see."""


class LoggingObserver:
    """Logs each event with the study's name and trial's number; passes everything on."""

    def __init__(self, observer: Observer, study: str) -> None:
        self._observer = observer
        self._study = study

    def on_event(self, event: ProgressEvent) -> None:
        """Log an event."""
        self._observer.on_event(event)
        level = logging.WARNING if event.kind in _WARNINGS else logging.INFO
        fields = {"study": self._study, "trial": event.number}
        _logger.log(level, "%s: %s", event.kind, event.text, extra=fields)

    def progress(self, progress: Progress) -> None:
        """Pass a snapshot on."""
        self._observer.progress(progress)
