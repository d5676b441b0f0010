"""Proposals drawn before a worker is free, so that no worker waits for them.

Only for samplers with proposals that follow from the seed, the trial's number and the study as it
was: such a proposal can wait or be dropped without a trace. Prefetched proposals are the last
trials of the study in memory; nothing of them is recorded before they are taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from tunesvc.db.trial_changes import TrialChanges
from tunesvc.spec import ParamValue

DRAWN_AT = "drawn"
"""Detail of a prefetched proposal: the database's time of the step after which it was drawn."""


@runtime_checkable
class Reproducible(Protocol):
    """A sampler with proposals that may be prefetched."""

    repeatable: bool
    """True if a proposal follows from seed, trial number and study alone,
    and asking changes nothing."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new trial."""

    number: int
    params: Mapping[str, ParamValue]
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    sampler_error: str | None = None
    """Error of the sampler, if this proposal was drawn at random because of it."""


@dataclass(frozen=True, slots=True)
class PrefetchedProposal:
    """A proposal that has not been taken yet."""

    proposal: Proposal
    changes: TrialChanges
    """Changes to record when it is taken."""
    stale_from: int
    """Number of finished trials from which on it is stale."""
    step_time: str | None
    """Time of the step that it rests on, for replay: see `DRAWN_AT`.
    None while that step is committed."""

    @property
    def timestamped(self) -> Proposal:
        """The proposal, with the time at which it was drawn in its details."""
        return replace(
            self.proposal,
            details={**self.proposal.details, DRAWN_AT: self.step_time},
        )


PrefetchQueue = deque[PrefetchedProposal]
"""In order of their numbers."""
