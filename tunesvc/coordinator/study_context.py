"""The study that a coordinator's parts work on, with their clock and observer."""

from __future__ import annotations

from dataclasses import dataclass

from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.spec import StudySpec
from tunesvc.util.clock import Clock


@dataclass(frozen=True, slots=True)
class StudyContext:
    """Values that stay the same for a whole run."""

    spec: StudySpec
    """The spec at the start of the run; budget, parallelism and ranges may change later."""
    study_id: int
    clock: Clock
    observer: Observer

    def notify(self, kind: str, text: str, number: int | None = None) -> None:
        """Send an event to the observer; `number` is the trial it is about."""
        self.observer.on_event(ProgressEvent(kind, text, number))
