"""Which attempt is where: launches that wait, workers, the attempts on them, and how long anything is waited for.

Values only; imports no Ray.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesvc.execute.executor import AttemptId, Launch

if TYPE_CHECKING:
    from tunesvc.execute.fleet import WorkerActor


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long, in seconds."""

    poll_s: float = 5.0
    """A worker keeps a poll open when nothing happens; its answer even so is its sign of life."""
    retry_s: float = 0.5
    """A worker that cannot be reached is left alone."""
    adoption_s: float = 30.0
    """Workers of an earlier coordinator may take to come up. Those that are up may have something, and keep it."""
    killed_s: float = 10.0
    """Ray may take to say that a worker is dead which it was told to kill."""
    look_s: float = 10.0
    """Between looks for workers that a coordinator started after its study was taken over."""


@dataclass(slots=True, eq=False)
class Slot:
    """A worker and what it does."""

    actor: WorkerActor
    is_up: bool = False
    is_adopted: bool = False
    """Whether an earlier coordinator started it, from what the job was then: no other attempt may run on it."""
    running: Running | None = None


@dataclass(slots=True, eq=False)
class Running:
    """An attempt that a worker was given, or that an earlier coordinator gave to one."""

    attempt: AttemptId
    slot: Slot | None
    """None as long as its worker is looked for."""
    delivered: int = 0
    acknowledged: int = 0
    heard_of: bool = False
    """Whether the worker is known to have it; what is sent before could overtake the launch."""
    unsent: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """What the worker has to be told then."""
    answered: bool = True
    """Whether the worker has answered since somebody last asked."""
    killed: bool = False
    over: bool = False
    """Whether its outcome was delivered. Its worker keeps that until it is recorded."""
    reusable: bool = False
    """Whether its worker may run another attempt then."""

    @property
    def is_recorded(self) -> bool:
        """Whether all that it ever said is recorded for good."""
        return self.over and self.acknowledged >= self.delivered


@dataclass(slots=True)
class Waiting:
    """Launches that no worker has taken yet, in order."""

    launches: deque[Launch] = field(default_factory=deque)

    def remove(self, attempt: AttemptId) -> bool:
        """Take an attempt out; whether it was there."""
        for launch in self.launches:
            if launch.attempt == attempt:
                self.launches.remove(launch)
                return True
        return False
