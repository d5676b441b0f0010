"""Proposals that are drawn before a worker is free, so that it need not wait for them.

Only of samplers whose proposals follow from their seed, the trial's number and the study as it was: such a proposal may
wait, or be thrown away, and nobody can tell afterwards. They are the last trials of the study in memory; nothing of
them is recorded before somebody takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from tunesvc.db.trial_changes import TrialChanges
from tunesvc.spec import ParamValue

DRAWN_AT = "drawn"
"""Detail of a proposal that was drawn ahead: the time of the step after which it was, as the database tells it."""


@runtime_checkable
class Reproducible(Protocol):
    """A sampler that may be asked ahead."""

    repeatable: bool
    """Whether a proposal follows from the seed, the trial's number and the study alone, and asking changes nothing."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new trial."""

    number: int
    params: Mapping[str, ParamValue]
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    sampler_error: str | None = None
    """What the sampler raised, when this proposal had to be drawn at random instead."""


@dataclass(frozen=True, slots=True)
class PrefetchedProposal:
    """A proposal that nobody has taken yet."""

    proposal: Proposal
    changes: TrialChanges
    """To be recorded once it is taken."""
    stale_from: int
    """So many results make it stale."""
    step_time: str | None
    """Of the study as it was, for replay: see `DRAWN`. None while the step that led to it is being written."""

    @property
    def timestamped(self) -> Proposal:
        """The proposal, saying when it was drawn."""
        return replace(
            self.proposal,
            details={**self.proposal.details, DRAWN_AT: self.step_time},
        )


PrefetchQueue = deque[PrefetchedProposal]
"""In order of their numbers."""
