"""Changes that a search makes to a study: trials, parameters, attributes, ends and decisions.

Plain values only, without attempts, leases or logs; `StudyChanges` adds those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class NewTrial(NamedTuple):
    number: int
    state: str
    """`running`, or `waiting` for an enqueued one."""


class NewParam(NamedTuple):
    number: int
    name: str
    position: int
    value: float
    """Optuna's internal representation."""
    distribution: str


class Attr(NamedTuple):
    number: int | None
    """None for an attribute of the study."""
    kind: Literal["user", "system"]
    name: str
    value: str
    """Python's JSON."""


class TrialEnd(NamedTuple):
    number: int
    state: str
    values: list[float] | None


class Decision(NamedTuple):
    number: int | None
    """The trial it is about; None for the whole study."""
    kind: str
    reason: str
    details: Mapping[str, Any]


@dataclass(slots=True)
class TrialChanges:
    """Changes by kind, in the order in which they are applied."""

    trials: list[NewTrial] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)
    """Waiting trials that start to run."""
    params: list[NewParam] = field(default_factory=list)
    attrs: list[Attr] = field(default_factory=list)
    finished: list[TrialEnd] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def add(self, other: TrialChanges) -> None:
        """Append other changes."""
        self.trials += other.trials
        self.restarted += other.restarted
        self.params += other.params
        self.attrs += other.attrs
        self.finished += other.finished
        self.decisions += other.decisions
