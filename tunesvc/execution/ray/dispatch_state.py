"""Which attempt is where: launches that wait, workers, the attempts on them, and how long anything is waited for.

Values only; imports no Ray.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

from tunesvc.execution.executor import AttemptId, Launch
from tunesvc.execution.worker.worker_protocol import WorkerCommand

if TYPE_CHECKING:
    from tunesvc.execution.attempt.attempt import WorkerInfo
    from tunesvc.execution.ray.worker_backend import WorkerHandle


HANDOVER_S = 0.2
"""How long an end takes to be heard and recorded, the next attempt to be decided on, and its launch to reach a worker:
0.03 to 0.1 s on two busy cores, and more where a sampler takes its time."""


@dataclass(frozen=True, slots=True)
class PollingTimeouts:
    """How often and how long, in seconds."""

    poll_s: float = 5.0
    """A worker keeps a poll open when nothing happens; its answer even so is its sign of life."""
    retry_s: float = 0.5
    """A worker that cannot be reached is left alone."""
    adoption_s: float = 30.0
    """Workers of an earlier coordinator may take to come up. Those that are up may have something, and keep it."""
    killed_s: float = 10.0
    """Ray may take to say that a worker is dead which it was told to kill."""
    check_s: float = 10.0
    """Between looks for workers that a coordinator started after its study was taken over."""
    backlog_s: float = 0.05
    """An attempt stands in a worker's line for so long before another worker gets it that has nothing to do."""
    long_attempt_s: float = HANDOVER_S
    """No more than one stands in line behind an attempt that has run for so long."""


@dataclass(slots=True, eq=False)
class WorkerState:
    """A worker and what it does."""

    handle: WorkerHandle
    node: str = ""
    """Where it is up; empty while nobody has said."""
    info: WorkerInfo | None = None
    """The same in full; None for a worker of an earlier coordinator too."""
    output_positions: dict[str, int] = field(default_factory=dict)
    """Up to where each stream of its output was heard."""
    death: BaseException | None = None
    """What Ray said when it died."""
    is_up: bool = False
    poll_count: int = 0
    """How many were made of it."""
    pending_commands: list[tuple[int, WorkerCommand]] = field(default_factory=list)
    """Those that it is not known to have, each with the number of the first call that brings it."""
    is_poll_scheduled: bool = False
    """Whether a call of it is about to be made."""
    is_retiring: bool = False
    """Whether no other attempt may begin on it: it is an earlier coordinator's, started from what the job was then, or
    the last attempt left something behind, or it is dead."""
    attempts: list[AssignedAttempt] = field(default_factory=list)
    """Those whose end is not recorded, in the order in which they run."""

    @property
    def live(self) -> list[AssignedAttempt]:
        """Those that are not over: the one that runs, and those that follow it."""
        return [assigned for assigned in self.attempts if not assigned.is_finished]

    @property
    def is_free(self) -> bool:
        """Whether an attempt would begin on it at once."""
        return self.is_up and not self.is_retiring and not self.live

    def has_backlog_room(self, backlog_max: int) -> bool:
        """Whether one more may stand in its line, where so many may."""
        return self.is_up and not self.is_retiring and 0 < len(self.live) <= backlog_max

    def send(self, command: WorkerCommand) -> None:
        """Have its next call say this."""
        self.pending_commands.append((self.poll_count + 1, command))

    def confirm(self, number: int) -> None:
        """It has what it was told by the call of this number."""
        self.pending_commands = [(first, command) for first, command in self.pending_commands if first > number]


CancelReason = Literal["other worker", "stop", "kill"]
"""Why an attempt is to be taken out of a worker's line."""


@dataclass(slots=True, eq=False)
class AssignedAttempt:
    """An attempt that a worker was given, or that an earlier coordinator gave to one."""

    attempt: AttemptId
    worker: WorkerState | None
    """None as long as its worker is looked for."""
    launch: Launch | None = None
    """None for one of an earlier coordinator."""
    since_s: float = 0.0
    """When it was given to its worker, or was heard to begin."""
    in_backlog: bool = False
    """Whether it was given to a worker that ran another one, and nothing was heard of it since."""
    cancel_reason: CancelReason | None = None
    """Why it is asked for back, until its worker does not have it or has begun it."""
    delivered: int = 0
    acknowledged: int = 0
    deferred_commands: list[WorkerCommand] = field(default_factory=list)
    """What its worker has to be told, as soon as that is found."""
    has_answered: bool = True
    """Whether the worker has answered since somebody last asked."""
    is_killed: bool = False
    is_finished: bool = False
    """Whether its outcome was delivered. Its worker keeps that until it is recorded."""

    @property
    def is_recorded(self) -> bool:
        """Whether all that it ever said is recorded for good."""
        return self.is_finished and self.acknowledged >= self.delivered


@dataclass(slots=True)
class PendingQueue:
    """Launches that no worker has taken yet, in order."""

    launches: deque[Launch] = field(default_factory=deque)

    def remove(self, attempt: AttemptId) -> bool:
        """Take an attempt out; whether it was there."""
        for launch in self.launches:
            if launch.attempt == attempt:
                self.launches.remove(launch)
                return True
        return False

    def pop_first_attempt(self, after: int) -> Launch | None:
        """Take out the first that is its trial's first attempt, behind so many others; None when there is none."""
        launch = next((launch for launch in islice(self.launches, after, None) if launch.attempt.number == 1), None)
        if launch is not None:
            self.launches.remove(launch)
        return launch
