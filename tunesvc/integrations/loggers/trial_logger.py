"""The interface between the follower of a study and a tracker, and the values that pass through it.

A logger of your own derives from `TrialLogger` and is named by its import path in `loggers`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class LoggedStudy:
    """A study whose trials are logged."""

    name: str
    key: str
    """Unique among the studies of all databases."""
    description: str


@dataclass(frozen=True, slots=True)
class LoggedPoint:
    """Metrics that a trial reported at a step."""

    step: int
    at: datetime
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LoggedTrial:
    """A trial as it is now."""

    study: LoggedStudy
    number: int
    state: str
    """`running`, `paused`, `interrupted`, `complete`, `pruned`, `failed` or `stopped`."""
    is_finished: bool
    params: Mapping[str, Any]
    """Parameters and constants; empty while the objective may still ask for others."""
    results: Mapping[str, float]
    """Values of a finished trial and other numbers that it returned. A metric that it also reported
    has `result/` before its name."""
    attrs: Mapping[str, Any]
    """User attributes that are not numbers."""
    tags: tuple[str, ...]
    """Tags of the study and its own."""
    labels: Mapping[str, str]
    """Texts by name: `tunesvc.study`, `tunesvc.trial`, `tunesvc.state`, and where they apply
    `tunesvc.reason`, `tunesvc.failure`, `tunesvc.parent`, `tunesvc.url`."""
    started_at: datetime
    ended_at: datetime | None
    last_step: int
    """The last step that it reported; 0 before the first."""

    @property
    def name(self) -> str:
        """Its name where only this study is shown."""
        return f"trial-{self.number}"


class TrialLogger:
    """Sends trials to a tracker. One thread calls it, outside of the coordinator's process.

    Any method may raise: the trial is then sent again later, after `recover`.
    """

    live: ClassVar[bool] = True
    """False for a tracker that gets a trial only when it has finished, with its whole curve."""

    def open(self, study: LoggedStudy) -> str:
        """Load the tracker's library; return where the trials go, without passwords."""
        raise NotImplementedError

    def recover(self, trial: LoggedTrial, run: str | None) -> tuple[str | None, Collection[int]]:
        """Return what an interrupted call of `send` left: the run, and the steps that it has.

        Without this method, a step may be sent twice after a crash.

        Args:
            trial: the trial.
            run: its run; None if the call that opens one was interrupted.
        """
        return run, ()

    def send(self, run: str | None, trial: LoggedTrial, points: Sequence[LoggedPoint]) -> str:
        """Log a trial's new points and its state, which is final if it has finished.

        What was sent is durable when this returns.

        Args:
            run: what the first call for this trial returned; None for the first.
            trial: the trial as it is now.
            points: reports that were not yet sent, by step.

        Returns:
            The tracker's id of the run.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what is open."""
