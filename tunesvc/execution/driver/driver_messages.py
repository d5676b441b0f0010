"""Messages between the coordinator's process and the Ray driver's process.

Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tunesvc import errors
from tunesvc.errors import ExecutorError, TuneError
from tunesvc.execution.executor import AttemptId, Capacity, Event, Executor, Job, Launch
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.spec import ParamValue

# --- to the driver --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Join the cluster at `address`, or start a local Ray. The first message."""

    address: str | None
    local: LocalResources | None
    source: str | None
    """The user's directory. A cluster gets a copy."""
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


@dataclass(frozen=True, slots=True)
class Adopt:
    """See `Executor.adopt`."""

    token: int
    cursors: Mapping[AttemptId, int]

    def perform(self, executor: Executor) -> None:
        executor.adopt(self.token, self.cursors)


@dataclass(frozen=True, slots=True)
class Start:
    """See `Executor.launch`."""

    launch: Launch

    def perform(self, executor: Executor) -> None:
        executor.launch(self.launch)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """See `Executor.acknowledge`."""

    cursors: Mapping[AttemptId, int]

    def perform(self, executor: Executor) -> None:
        executor.acknowledge(self.cursors)


@dataclass(frozen=True, slots=True)
class AnswerCommand:
    """See `Executor.answer`."""

    attempt: AttemptId
    name: str
    value: ParamValue | bytes

    def perform(self, executor: Executor) -> None:
        executor.answer(self.attempt, self.name, self.value)


@dataclass(frozen=True, slots=True)
class Stop:
    """See `Executor.stop`."""

    attempt: AttemptId

    def perform(self, executor: Executor) -> None:
        executor.stop(self.attempt)


@dataclass(frozen=True, slots=True)
class Kill:
    """See `Executor.kill`."""

    attempt: AttemptId

    def perform(self, executor: Executor) -> None:
        executor.kill(self.attempt)


@dataclass(frozen=True, slots=True)
class Close:
    """See `Executor.close`. The driver forgets the job."""

    def perform(self, executor: Executor) -> None:
        executor.close()


@dataclass(frozen=True, slots=True)
class Leave:
    """See `Executor.leave`. The driver forgets the job."""

    def perform(self, executor: Executor) -> None:
        executor.leave()


AttemptCommand = AnswerCommand | Stop | Kill
"""Commands about one attempt. Repeatable."""
CloseCommand = Close | Leave
Command = Adopt | Start | Acknowledge | AttemptCommand | CloseCommand


@dataclass(frozen=True, slots=True)
class JobCommand:
    """A command to one of the driver's jobs."""

    number: int
    command: Command


@dataclass(frozen=True, slots=True)
class End:
    """End the driver and its local Ray."""


StartupCommand = Join | Begin
"""Commands that each driver gets first."""
DriverCommand = StartupCommand | JobCommand | End

# --- from the driver ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster's resources. The first one means that the driver is ready for the job."""

    capacity: Capacity
    slots: int
    """Number of attempts that the job may launch at a time, see `fair_share`."""
    refusal: str = ""
    """Why the job's request can never be met. `slots` is not valid then."""


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
class AttemptEvents:
    """New events of a job's attempts."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class AttemptHeartbeats:
    """Attempts of a job with a heartbeat, and the executor's `health_error`."""

    alive: Collection[AttemptId]
    health_error: str


@dataclass(frozen=True, slots=True)
class DriverHeartbeat:
    """Heartbeat of the driver's event loop."""

    unanswered_s: float
    """Time since Ray last answered."""


JobPayload = Cluster | StartupRefused | AttemptEvents | AttemptHeartbeats


@dataclass(frozen=True, slots=True)
class JobMessage:
    """A message about one of the driver's jobs."""

    number: int
    message: JobPayload


Message = StartupRefused | DriverHeartbeat | JobMessage
