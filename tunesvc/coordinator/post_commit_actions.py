"""What a step wants done outside of the database; carried out only when the step is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesvc.execution.executor import AttemptId, Executor, Launch
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.spec import ParamValue


@dataclass(frozen=True, slots=True)
class AdoptAction:
    """What an earlier coordinator launched and we go on with."""

    token: int
    cursors: Mapping[AttemptId, int]


@dataclass(slots=True)
class PostCommitActions:
    """In the order in which they are performed. A crash may lose any of them: the next coordinator decides anew."""

    adoption: AdoptAction | None = None
    heard: dict[AttemptId, int] = field(default_factory=dict)
    answers: list[tuple[AttemptId, str, ParamValue | bytes]] = field(default_factory=list)
    stops: list[AttemptId] = field(default_factory=list)
    kills: list[AttemptId] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    parallelism: int | None = None
    """How many attempts may run at a time, for those that are launched."""
    line: int = 1
    """How many of them may stand in each worker's line."""

    def perform(self, executor: Executor) -> None:
        """Tell the executor."""
        if self.adoption is not None:
            executor.adopt(self.adoption.token, self.adoption.cursors)
            failpoints.reach("adopted")
        if self.heard:
            executor.acknowledge(self.heard)
            event_log.record("acknowledge", cursors=[(*attempt, cursor) for attempt, cursor in self.heard.items()])
            failpoints.reach("acknowledged")
        for attempt, name, value in self.answers:
            executor.answer(attempt, name, value)
            failpoints.reach("answered")
        for attempt in self.stops:
            executor.stop(attempt)
            failpoints.reach("stopped")
        for attempt in self.kills:
            executor.kill(attempt)
            failpoints.reach("killed")
        for launch in self.launches:
            executor.launch(launch)
            event_log.record("launch", attempt=launch.attempt)
            failpoints.reach("launched")
