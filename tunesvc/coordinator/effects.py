"""What a step wants done outside of the database; carried out only when the step is committed."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunesvc.execute.executor import AttemptId, Executor, Launch
from tunesvc.spec import ParamValue


@dataclass(slots=True)
class Effects:
    """In the order in which they are performed. All but launches may be lost in a crash and are then decided anew."""

    heard: dict[AttemptId, int] = field(default_factory=dict)
    answers: list[tuple[AttemptId, str, ParamValue]] = field(default_factory=list)
    stops: list[AttemptId] = field(default_factory=list)
    kills: list[AttemptId] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)

    def perform(self, executor: Executor) -> None:
        """Tell the executor."""
        if self.heard:
            executor.acknowledge(self.heard)
        for attempt, name, value in self.answers:
            executor.answer(attempt, name, value)
        for attempt in self.stops:
            executor.stop(attempt)
        for attempt in self.kills:
            executor.kill(attempt)
        for launch in self.launches:
            executor.launch(launch)
