"""Messages between agents and the server. Plain values, which JSON can express. Imports no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

OUTCOMES = frozenset({"Finished", "StoppedEarly", "Failed", "Lost"})
"""Types of the last event of every launch."""
QUESTION = "SuggestRequested"
"""Type of the event that waits for an answer."""


@dataclass(frozen=True, slots=True)
class AgentJob:
    """Settings that all launches of a study have in common."""

    digest: str
    job: Mapping[str, Any]
    """As `execution.agents.wire` writes it."""
    lease_s: float
    """Duration of a lease without a heartbeat."""
    snapshot: str | None = None
    """Digest of the study's folder; None if it was not submitted."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as its agent knows it."""

    token: Annotated[int, Field(ge=0, lt=2**63)]
    stop: bool = False
    """True if the agent knows of the request to stop."""
    answers: int = 0
    """Number of the last answer that the agent has."""


@dataclass(frozen=True, slots=True)
class AgentPoll:
    """A heartbeat of an agent, and its request for launches."""

    slots: Annotated[int, Field(ge=0, lt=2**16)] = 0
    """Number of attempts that it runs at a time."""
    takes: bool = True
    """False if it takes no more launches."""
    job: str | None = ""
    """Digest of the job that it has; it takes launches of this job only. None if it needs none."""
    held: tuple[HeldLease, ...] = ()
    """All its leases. One that is left out did not arrive, and is sent again."""


@dataclass(frozen=True, slots=True)
class LeasedLaunch:
    """A launch, and the lease under which its agent may report."""

    token: int
    """Fencing token: calls of its agent carry it, and are refused once the lease is lost."""
    trial_id: int
    attempt: int
    launch: Mapping[str, Any]
    """As `execution.agents.wire` writes it."""
    lease_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question."""

    number: int
    """1, 2, 3, ... within the launch."""
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """Requests of the coordinator to a lease's agent."""

    token: int
    stop: bool
    answers: tuple[Answered, ...] = ()
    lease_s: float = 0.0
    """The lease lasts for so long from now."""


@dataclass(frozen=True, slots=True)
class AgentOrders:
    """The answer to a poll."""

    state: str
    """State of the study."""
    job: AgentJob | None = None
    """The job, if the agent has another one; None too before a coordinator has named one."""
    launches: tuple[LeasedLaunch, ...] = ()
    held: tuple[LeaseStatus, ...] = ()
    lost: tuple[int, ...] = ()
    """Tokens of leases that the agent no longer has: it drops their attempts."""


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """A numbered event of an attempt."""

    number: Annotated[int, Field(ge=0, lt=2**63)]
    """1, 2, 3, ... as the attempt's outbox numbers it. 0 for the next one."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """As `execution.agents.wire` writes it."""


# --- for programs and people that ask for one trial at a time -------------------------------------


@dataclass(frozen=True, slots=True)
class AskedTrial:
    """A trial that was asked for, and the lease under which its result may be told."""

    token: int
    """Names the lease in addresses. It is refused once the lease is lost."""
    study: str
    trial: int
    """Number of the trial."""
    attempt: int
    """1 for the first execution of the trial."""
    params: Mapping[str, Any]
    seed: int
    metrics: tuple[str, ...]
    """Names of the study's objectives."""
    lease_s: float
    """Time until the lease runs out, unless a heartbeat or report renews it."""
    has_checkpoint: bool = False
    """True if an earlier attempt has left a checkpoint to continue from."""
