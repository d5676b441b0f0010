"""Helpers for tests of executors: jobs, launches, and a listener for events."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tunesvc.execution.executor import AttemptId, Event, Executor, Job, Launch, Outcome, Started
from tunesvc.spec import Environment, ParamValue, Resources

OBJECTIVES = Path(__file__).parents[1] / "objectives"
PATIENCE_S = 90.0
_NUMBERS = count()


def make_job(folder: Path, **changes: Any) -> Job:
    """A job of one CPU whose checkpoints lie in `folder`."""
    fields: dict[str, Any] = {
        "study": "study",
        "key": f"key-of-{folder.name}",
        "metrics": ("loss",),
        "resources": Resources(cpu=1),
        "environment": Environment(),
        "checkpoint_root": str(folder / "checkpoints"),
        "source": str(folder),
    }
    return Job(**(fields | changes))


def make_launch(
    number: int = 0, *, attempt: int = 1, checkpoint: str | None = None, **params: ParamValue
) -> Launch:
    """A launch of one trial."""
    return Launch(AttemptId(number, attempt), number, params, seed=number, checkpoint=checkpoint)


def launch_of(function: str, **params: ParamValue) -> Launch:
    """A launch of a function that the job's `by_name` finds, for a trial that no other test has."""
    return make_launch(next(_NUMBERS), function=function, **params)


class Listener:
    """Takes in what an executor's attempts say and acknowledges it, as a coordinator does."""

    def __init__(self, executor: Any) -> None:
        self.executor: Any = executor
        """An `Executor`, or more than that."""
        self.events: dict[AttemptId, list[Event]] = defaultdict(list)

    def until(self, happened: Callable[[Listener], bool]) -> Listener:
        """Listen until something has happened; fails when it does not."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened(self):
            assert time.monotonic() < deadline, f"did not happen; heard last: {self.last_words()}"
            self.once(1.0)
        return self

    def take_over(self, executor: Executor, *, token: int) -> None:
        """Go on with another executor from what was heard so far, as the next coordinator does."""
        self.executor = executor
        executor.adopt(
            token, {a: len(heard) for a, heard in self.events.items() if not _is_over(heard)}
        )

    def once(self, timeout_s: float) -> None:
        """Listen once."""
        for event in self.executor.events(timeout_s):
            heard = self.events[event.attempt]
            assert event.seq == len(heard) + 1, f"number {event.seq} follows {len(heard)}"
            heard.append(event)
        self.executor.acknowledge({attempt: len(heard) for attempt, heard in self.events.items()})

    def until_ended(self, *launches: Launch) -> Listener:
        """Listen until these attempts are over."""
        return self.until(lambda heard: all(heard.has_ended(launch) for launch in launches))

    def run(self, launch: Launch) -> list[Any]:
        """Run one attempt to its end and return its events."""
        self.executor.launch(launch)
        return self.until_ended(launch).payloads_of(launch)

    def payloads_of(self, launch: Launch, kind: Any = object) -> list[Any]:
        """Return an attempt's events of one kind."""
        return [e.payload for e in self.events[launch.attempt] if isinstance(e.payload, kind)]

    def has(self, launch: Launch, kind: Any) -> bool:
        """Return whether an attempt sent an event of this kind."""
        return bool(self.payloads_of(launch, kind))

    def has_ended(self, launch: Launch) -> bool:
        """Return whether an attempt's last event is an outcome."""
        return _is_over(self.events[launch.attempt])

    def last_words(self) -> list[Event]:
        """The latest event of each attempt."""
        return [events[-1] for events in self.events.values() if events]

    def outcome(self, launch: Launch) -> Any:
        """An attempt's last word."""
        return self.payloads_of(launch)[-1]

    def running(self) -> int:
        """Attempts that have started and not ended."""
        heard = [events for events in self.events.values() if events]
        return sum(
            isinstance(e[0].payload, Started) and not isinstance(e[-1].payload, Outcome)
            for e in heard
        )


def _is_over(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1].payload, Outcome)
