"""The observer's view of a running study: frozen snapshots, and events of one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tunesvc.spec import ParamValue


@dataclass(frozen=True, slots=True)
class LiveTrial:
    """A trial with a live attempt."""

    number: int
    attempt: int
    queued: bool
    """True while it waits for resources, or in a worker behind another attempt."""
    params: Mapping[str, ParamValue]
    step: int | None
    value: float | None
    """The first objective's value at `step`."""
    elapsed_s: float
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BestTrial:
    """The best finished trial so far (for several objectives: one of the Pareto front)."""

    number: int
    values: tuple[float, ...]
    params: Mapping[str, ParamValue]


@dataclass(frozen=True, slots=True)
class Progress:
    """Snapshot of a study after a step."""

    study: str
    state: str
    reason: str
    complete: int
    pruned: int
    failed: int
    stopped: int
    """Trials that were ended or cancelled before their first report."""
    paused: int
    """Trials that use no resources and may be promoted."""
    running: tuple[LiveTrial, ...]
    queued: tuple[LiveTrial, ...]
    budget_trials: int | None
    fraction: float
    """Spent share of the tightest budget, 0 ... 1."""
    elapsed_s: float
    """Running time of the study, earlier runs included."""
    left_s: float | None
    """Estimated time until the budget is spent; None while unknown."""
    gpu_hours: float
    gpus_busy: float
    gpus_total: float
    best: BestTrial | None
    forecast: str = ""
    """Expected improvement as text; empty while unknown."""
    cost: str = ""
    """Cost so far with its currency; empty without prices."""

    @property
    def live(self) -> tuple[LiveTrial, ...]:
        """Running trials, followed by queued ones."""
        return self.running + self.queued

    @property
    def done(self) -> int:
        """Number of finished trials."""
        return self.complete + self.pruned + self.failed + self.stopped


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One event of a run, in a line."""

    kind: str
    """`phase` (start-up and shut-down), `complete`, `pruned`, `paused`, `promoted`, `failed`,
    `retry`, `best`, `warning` or `study`; with several studies also `over` (the end of one) and
    `error` (the reason why one could not continue)."""
    text: str
    number: int | None = None
    """The trial it is about."""


class Observer(Protocol):
    """Watches a run. Called from the coordinator's thread; must return at once."""

    def progress(self, progress: Progress) -> None:
        """Receive a snapshot.

        Called after every step in which a trial began or ended, a few times a second in between,
        and at the end; less often when thousands of trials run.
        """
        ...

    def on_event(self, event: ProgressEvent) -> None:
        """Receive an event, once."""
        ...


class SilentObserver:
    """Ignores everything."""

    def progress(self, progress: Progress) -> None:
        """Ignore a snapshot."""

    def on_event(self, event: ProgressEvent) -> None:
        """Ignore an event."""


class ObserverPair:
    """Passes everything on to two observers."""

    def __init__(self, first: Observer, second: Observer) -> None:
        self._both = (first, second)

    def progress(self, progress: Progress) -> None:
        """Pass a snapshot on."""
        for observer in self._both:
            observer.progress(progress)

    def on_event(self, event: ProgressEvent) -> None:
        """Pass an event on."""
        for observer in self._both:
            observer.on_event(event)
