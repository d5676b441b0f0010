"""Messages between the coordinator's process and the Ray driver's process.

Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from logging import LogRecord
from typing import Any, Literal

from tunesvc import errors
from tunesvc.errors import ExecutorError, TuneError
from tunesvc.execution.executor import AttemptId, Capacity, Event, Executor, Job
from tunesvc.execution.ray.cluster_connection import LocalResources

# --- to the driver --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Join the cluster at `address`, or start a local Ray. The first message."""

    address: str | None
    local: LocalResources | None
    program: str
    """The coordinator's `sys.argv[0]`.

    Ray lets workers import from the folder of the driver's program.
    """


@dataclass(frozen=True, slots=True)
class Begin:
    """Run attempts of this job too. May be sent at any time, for any number of jobs."""

    number: int
    """Identifies the job in all other messages. Never used twice."""
    job: Job


Method = Literal[
    "adopt",
    "launch",
    "acknowledge",
    "answer",
    "stop",
    "kill",
    "limit_workers",
    "close",
    "leave",
]
"""A method of `Executor` that returns nothing."""


@dataclass(frozen=True, slots=True)
class ExecutorCall:
    """A call of a job's executor."""

    number: int
    method: Method
    arguments: tuple[Any, ...] = ()

    @property
    def is_last(self) -> bool:
        """True if the driver forgets the job."""
        return self.method in ("close", "leave")

    def perform(self, executor: Executor) -> None:
        """Call the executor."""
        getattr(executor, self.method)(*self.arguments)


@dataclass(frozen=True, slots=True)
class End:
    """End the driver and its local Ray."""


StartupCommand = Join | Begin
"""Commands that each driver gets first."""
DriverCommand = StartupCommand | ExecutorCall | End

# --- from the driver ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster's resources. The first one means that the driver is ready for the job."""

    capacity: Capacity
    slots: int
    """Number of attempts that the job may launch at a time, see `fair_share`."""
    refusal: str = ""
    """Reason why the job's request can never be met. `slots` is not valid then."""


@dataclass(frozen=True, slots=True)
class StartupRefused:
    """Ray could not be started or reached, so the driver ends.

    In a `JobMessage`: the job cannot be run.
    """

    kind: str
    """The name of an exception in `errors`."""
    text: str

    @classmethod
    def by(cls, error: Exception) -> StartupRefused:
        """Convert an exception to text, because not every exception can be pickled."""
        kind = type(error).__name__
        text = str(error) if isinstance(error, TuneError) else f"{kind}: {error}"
        return cls(kind, text)

    def error(self) -> TuneError:
        """Return the exception. One of another library becomes an `ExecutorError`."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, TuneError):
            return kind(self.text)
        return ExecutorError(self.text)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """New events of a job's attempts."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class HeartbeatBatch:
    """Attempts of a job with a heartbeat, and the executor's `health_error`."""

    alive: Collection[AttemptId]
    health_error: str


@dataclass(frozen=True, slots=True)
class DriverHeartbeat:
    """Heartbeat of the driver's event loop."""

    unanswered_s: float
    """Time since Ray last answered."""


JobPayload = Cluster | StartupRefused | EventBatch | HeartbeatBatch


@dataclass(frozen=True, slots=True)
class JobMessage:
    """A message about one of the driver's jobs."""

    number: int
    message: JobPayload


Message = StartupRefused | DriverHeartbeat | JobMessage | LogRecord
