"""What a running study tells whoever watches: frozen snapshots and one-line notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tunesvc.spec import ParamValue


@dataclass(frozen=True, slots=True)
class LiveTrial:
    """A trial with an attempt on its way."""

    number: int
    attempt: int
    queued: bool
    """It waits for resources, or in a worker for the attempt before it."""
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
    """How a study stands after a step."""

    study: str
    state: str
    reason: str
    complete: int
    pruned: int
    failed: int
    stopped: int
    """Trials that were ended, or taken back, before they reported anything."""
    paused: int
    """Trials that hold nothing and may be promoted."""
    running: tuple[LiveTrial, ...]
    queued: tuple[LiveTrial, ...]
    budget_trials: int | None
    fraction: float
    """Share of the tightest budget that is spent, 0 ... 1."""
    elapsed_s: float
    """Running time of the study, earlier runs included."""
    left_s: float | None
    """Estimate of the time until the budget is spent, None while unknown."""
    gpu_hours: float
    gpus_busy: float
    gpus_total: float
    best: BestTrial | None
    forecast: str = ""
    """What improvement is expected, in words; empty while nobody can tell."""

    @property
    def live(self) -> tuple[LiveTrial, ...]:
        """Trials that run, and after them those that are queued."""
        return self.running + self.queued

    @property
    def done(self) -> int:
        """Trials that are over."""
        return self.complete + self.pruned + self.failed + self.stopped


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One thing that happened, in a line."""

    kind: str
    """`phase` (start-up and shut-down), `complete`, `pruned`, `paused`, `promoted`, `failed`, `retry`, `best`,
    `warning` or `study`; of several studies also `over` (how one ended) and `error` (why one could not go on)."""
    text: str
    number: int | None = None
    """The trial it is about."""


class Observer(Protocol):
    """Watches a run; called from the coordinator's thread and must return at once."""

    def progress(self, progress: Progress) -> None:
        """After every step in which a trial began or ended, a few times a second in between, and at the end; less often
        when thousands of trials run."""
        ...

    def on_event(self, event: ProgressEvent) -> None:
        """Once per happening."""
        ...


class SilentObserver:
    """Nobody watches."""

    def progress(self, progress: Progress) -> None:
        """Nothing."""

    def on_event(self, event: ProgressEvent) -> None:
        """Nothing."""
