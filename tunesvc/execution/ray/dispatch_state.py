"""State of dispatching: waiting launches, workers, the attempts assigned to them, and timeouts.

Imports no Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

from tunesvc.execution.executor import AttemptId, Event, Launch, Outcome, Payload
from tunesvc.execution.worker.worker_protocol import WorkerCommand

if TYPE_CHECKING:
    from tunesvc.execution.attempt.attempt import WorkerInfo
    from tunesvc.execution.ray.worker_backend import WorkerHandle


HANDOVER_S = 0.2
"""Time from the end of an attempt to the launch of the next one on its worker.

Measured: 0.03 to 0.1 s on two busy cores, and more with a slow sampler.
"""


@dataclass(frozen=True, slots=True)
class PollingTimeouts:
    """Timeouts and intervals of an executor, in seconds."""

    poll_s: float = 5.0
    """A worker answers a poll after this time even without events. The answer is its heartbeat."""
    retry_s: float = 0.5
    """Delay before an unreachable worker is called again."""
    adoption_s: float = 30.0
    """Time for workers of an earlier coordinator to come up.

    Workers that are up are given longer.
    """
    killed_s: float = 10.0
    """Time for Ray to confirm that it has killed a worker."""
    check_s: float = 10.0
    """Interval of the search for workers that a superseded coordinator has started."""
    backlog_s: float = 0.05
    """An attempt waits this long in a worker's backlog before it moves to an idle worker."""
    long_attempt_s: float = HANDOVER_S
    """Behind an attempt that has run for longer, at most one waits in the backlog."""


@dataclass(slots=True, eq=False)
class WorkerState:
    """A worker, its pending commands and its attempts."""

    handle: WorkerHandle
    node: str = ""
    """Address of its node. Empty while unknown."""
    info: WorkerInfo | None = None
    """Its location in full. None while unknown, and for workers of an earlier coordinator."""
    output_positions: dict[str, int] = field(default_factory=dict)
    """Position up to which each stream of its output was received."""
    death: BaseException | None = None
    """Ray's error when it died."""
    is_up: bool = False
    poll_count: int = 0
    """Number of polls sent."""
    pending_commands: list[tuple[int, WorkerCommand]] = field(default_factory=list)
    """Unconfirmed commands, each with the number of the first poll that carries it."""
    is_poll_scheduled: bool = False
    """True if a poll is about to be sent."""
    is_retiring: bool = False
    """True if no other attempt may begin on it.

    Either it is dead, or its last attempt left something behind, or an earlier coordinator has
    started it, perhaps for an older version of the job.
    """
    attempts: list[Assignment] = field(default_factory=list)
    """Attempts that are not fully recorded, in the order in which they run."""

    @property
    def live(self) -> list[Assignment]:
        """Unfinished attempts: the running one and its backlog."""
        return [assigned for assigned in self.attempts if not assigned.is_finished]

    @property
    def is_free(self) -> bool:
        """True if an attempt would begin on it at once."""
        return self.is_up and not self.is_retiring and not self.live

    def has_backlog_room(self, backlog_max: int) -> bool:
        """Return True if it is busy and its backlog may get one more attempt."""
        is_usable = self.is_up and not self.is_retiring
        return is_usable and 0 < len(self.live) <= backlog_max

    def send(self, command: WorkerCommand) -> None:
        """Add a command to the next poll."""
        self.pending_commands.append((self.poll_count + 1, command))

    def confirm(self, number: int) -> None:
        """Forget the commands of polls up to this number. The worker has them."""
        pending = self.pending_commands
        self.pending_commands = [(first, command) for first, command in pending if first > number]


CancelReason = Literal["other worker", "stop", "kill"]
"""Reason why an attempt is taken out of a worker's backlog."""


@dataclass(slots=True, eq=False)
class Assignment:
    """An attempt on a worker, assigned by this coordinator or by an earlier one."""

    attempt: AttemptId
    worker: WorkerState | None
    """None until its worker is found."""
    launch: Launch | None = None
    """None for an attempt of an earlier coordinator."""
    since_s: float = 0.0
    """Time when it was assigned, or when its first event arrived."""
    in_backlog: bool = False
    """True if its worker was busy when it was assigned, and no event has arrived since."""
    cancel_reason: CancelReason | None = None
    """Set while a cancel is pending: until the worker has given it back or has begun it."""
    delivered: int = 0
    """Number of the last event delivered."""
    acknowledged: int = 0
    """Number of the last event recorded."""
    deferred_commands: list[WorkerCommand] = field(default_factory=list)
    """Commands to send when its worker is found."""
    has_answered: bool = True
    """True if the worker has answered since `take_heartbeats` was last called."""
    is_killed: bool = False
    is_finished: bool = False
    """True if its outcome was delivered. The worker keeps it until it is recorded."""

    @property
    def is_recorded(self) -> bool:
        """True if all its events are recorded, the outcome included."""
        return self.is_finished and self.acknowledged >= self.delivered


@dataclass(slots=True)
class DispatchState:
    """All attempts of an executor, shared by its parts."""

    launches: deque[Launch] = field(default_factory=deque)
    """Attempts without a worker, in order."""
    assigned: dict[AttemptId, Assignment] = field(default_factory=dict)
    """Attempts on workers, and those of an earlier coordinator."""
    events: list[Event] = field(default_factory=list)
    """Events to deliver."""
    parallelism: int | None = None
    """Number of attempts that may run at a time. None means as many as fit."""
    workers_max: int | None = None
    """Number of workers above which idle ones end. None: they end only for the driver's jobs."""
    backlog_max: int = 1
    """Number of attempts that may wait in each worker's backlog."""
    schedule: Callable[[], None] = lambda: None
    """Assigns attempts to workers. Call it when a worker may be free. Set by the scheduler."""

    @property
    def attempt_count(self) -> int:
        """Number of live and waiting attempts, at most `parallelism`."""
        live = sum(not assigned.is_finished for assigned in self.assigned.values())
        count = live + len(self.launches)
        return count if self.parallelism is None else min(count, self.parallelism)

    @property
    def unmatched(self) -> list[Assignment]:
        """Attempts of an earlier coordinator that no known worker has."""
        return [assigned for assigned in self.assigned.values() if assigned.worker is None]

    def live(self, attempt: AttemptId) -> Assignment | None:
        """Return an attempt if it is assigned and unfinished."""
        assigned = self.assigned.get(attempt)
        if assigned is None or assigned.is_finished:
            return None
        return assigned

    def remove_launch(self, attempt: AttemptId) -> bool:
        """Remove an attempt that has no worker. Return True if there was one."""
        for launch in self.launches:
            if launch.attempt == attempt:
                self.launches.remove(launch)
                return True
        return False

    def pop_first_attempt(self, after: int) -> Launch | None:
        """Pop the next launch of a trial's first attempt, from the position `after` on."""
        for launch in islice(self.launches, after, None):
            if launch.attempt.number == 1:
                self.launches.remove(launch)
                return launch
        return None

    def fail_first(self, outcome: Outcome) -> None:
        """Fail the first waiting attempt because a worker could not start.

        Otherwise workers would be started again and again, without a limit on failures.
        """
        if self.launches:
            self.finish_unstarted(self.launches.popleft().attempt, outcome)

    def finish_unstarted(self, attempt: AttemptId, outcome: Outcome) -> None:
        """Deliver the outcome of an attempt that never began and is on no worker."""
        self.events.append(Event(attempt, 1, outcome))

    def deliver(self, assigned: Assignment, seq: int, payload: Payload) -> None:
        """Deliver an event of an attempt."""
        assigned.delivered = seq
        self.events.append(Event(assigned.attempt, seq, payload))

    def take_events(self) -> Sequence[Event]:
        """Return new events, each once."""
        events, self.events = self.events, []
        return events

    def clear(self) -> None:
        """Drop all attempts."""
        self.launches.clear()
        self.assigned.clear()
