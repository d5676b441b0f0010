"""The actions of a step outside the database, performed only after the step is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesvc.execution.executor import AttemptId, Executor, Launch
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.spec import ParamValue


@dataclass(frozen=True, slots=True)
class AdoptAction:
    """Adopt the running attempts of an earlier coordinator."""

    token: int
    """Our fencing token."""
    cursors: Mapping[AttemptId, int]
    """Last recorded event of each."""


@dataclass(slots=True)
class PostCommitActions:
    """Actions by kind, in the order in which they are performed.

    A crash may lose any of them; the next coordinator then decides again from what is stored.
    """

    adoption: AdoptAction | None = None
    acknowledged: dict[AttemptId, int] = field(default_factory=dict)
    """Last event of each attempt that is recorded."""
    answers: list[tuple[AttemptId, str, ParamValue | bytes]] = field(default_factory=list)
    stops: list[AttemptId] = field(default_factory=list)
    kills: list[AttemptId] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    worker_limits: list[int | None] = field(default_factory=list)
    """Number of workers above which idle ones end, whenever it changes; None: no limit."""
    parallelism: int | None = None
    """Attempts that may run at a time, sent with each launch."""
    worker_backlog: int = 1
    """Attempts that may wait in each worker, sent with each launch."""

    def perform(self, executor: Executor) -> None:
        """Pass all actions to the executor."""
        if self.adoption is not None:
            executor.adopt(self.adoption.token, self.adoption.cursors)
            failpoints.reach("adopted")
        if self.acknowledged:
            self._acknowledge(executor)
        for attempt, name, value in self.answers:
            executor.answer(attempt, name, value)
            failpoints.reach("answered")
        for attempt in self.stops:
            executor.stop(attempt)
            failpoints.reach("stopped")
        for attempt in self.kills:
            executor.kill(attempt)
            failpoints.reach("killed")
        for most in self.worker_limits:
            executor.limit_workers(most)
        for launch in self.launches:
            executor.launch(launch)
            event_log.record("launch", attempt=launch.attempt)
            failpoints.reach("launched")

    def _acknowledge(self, executor: Executor) -> None:
        executor.acknowledge(self.acknowledged)
        cursors = [(*attempt, cursor) for attempt, cursor in self.acknowledged.items()]
        event_log.record("acknowledge", cursors=cursors)
        failpoints.reach("acknowledged")
