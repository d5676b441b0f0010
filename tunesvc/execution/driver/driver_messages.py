"""What the coordinator's process and the Ray driver's process tell each other: frozen values over a pipe.

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

# --- to the driver ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Join the cluster at `address`, or start a local Ray. The first message."""

    address: str | None
    local: LocalResources | None
    source: str | None
    """The user's directory, of which a cluster gets a copy."""
    program: str
    """The coordinator's `sys.argv[0]`: Ray lets workers import what lies beside the driver's program."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Run attempts of this job too. May come long after Ray is up, and any number of times."""

    number: int
    """By which both sides name the job from here on. None is used twice."""
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
    """See `Executor.close`. The job is forgotten with it."""

    def perform(self, executor: Executor) -> None:
        executor.close()


@dataclass(frozen=True, slots=True)
class Leave:
    """See `Executor.leave`. The job is forgotten with it."""

    def perform(self, executor: Executor) -> None:
        executor.leave()


AttemptCommand = AnswerCommand | Stop | Kill
"""What is wanted of one attempt; telling it twice does no harm."""
CloseCommand = Close | Leave
Command = Adopt | Start | Acknowledge | AttemptCommand | CloseCommand


@dataclass(frozen=True, slots=True)
class JobCommand:
    """A command to one of the driver's jobs."""

    number: int
    command: Command


@dataclass(frozen=True, slots=True)
class End:
    """There will be no other job. The driver ends with it, and its local Ray."""


StartupCommand = Join | Begin
"""What each driver has to be told before anything else."""
DriverCommand = StartupCommand | JobCommand | End

# --- from the driver --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    """What Ray says that it has. The first one says that the driver is ready for the job."""

    capacity: Capacity
    slots: int
    """How many attempts the job may have under way: see `fair_share`."""
    refusal: str = ""
    """Why the job's request can never be met; `slots` means nothing then."""


@dataclass(frozen=True, slots=True)
class StartupRefused:
    """Ray could not be started or reached, and the driver has ended; or, in `JobPayload`, the job cannot be run."""

    kind: str
    """The name of an exception in `errors`."""
    text: str

    @classmethod
    def by(cls, error: Exception) -> StartupRefused:
        """As text: an exception itself might not survive the way."""
        known = isinstance(error, TuneError)
        return cls(type(error).__name__, str(error) if known else f"{type(error).__name__}: {error}")

    def error(self) -> TuneError:
        """The exception again; one that is none of ours is an `ExecutorError`."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, TuneError):
            return kind(self.text)
        return ExecutorError(self.text)


@dataclass(frozen=True, slots=True)
class AttemptEvents:
    """What attempts said."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class AttemptHeartbeats:
    """How the job's attempts are."""

    alive: Collection[AttemptId]
    health_error: str


@dataclass(frozen=True, slots=True)
class DriverHeartbeat:
    """The driver's loop goes round."""

    unanswered_s: float
    """How long ago Ray last said what it has."""


JobPayload = Cluster | StartupRefused | AttemptEvents | AttemptHeartbeats


@dataclass(frozen=True, slots=True)
class JobMessage:
    """What is said of one of the driver's jobs."""

    number: int
    message: JobPayload


Message = StartupRefused | DriverHeartbeat | JobMessage
