"""One step's worth of changes to a study, as frozen rows: what a coordinator commits in one transaction.

Plain values only; `tunesvc.db.study_writer` turns each list into one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

from tunesvc.db.schema.states import StudyState
from tunesvc.db.trial_changes import TrialChanges


class OpenedAttempt(NamedTuple):
    number: int
    attempt: int
    cpus: float
    gpus: float
    after_step: int
    """It goes on after this step of an earlier attempt, whose later reports no longer count; -1: from the start."""
    stall_s: float
    """Its lease: how long it may give no sign of life."""


class AliveAttempt(NamedTuple):
    number: int
    attempt: int
    stall_s: float
    """Its lease is renewed for so long."""


class StartedAttempt(NamedTuple):
    number: int
    attempt: int
    node: str
    pid: int
    devices: tuple[str, ...]
    code: str


class Report(NamedTuple):
    number: int
    attempt: int
    step: int
    value: float | None
    metrics: Mapping[str, float]
    """The metrics besides the first objective's."""


class LogLine(NamedTuple):
    number: int
    attempt: int
    seq: int
    stream: str
    text: str


class LogCut(NamedTuple):
    """A note in place of an attempt's log lines `first` to `last`."""

    number: int
    attempt: int
    first: int
    last: int
    stream: str
    text: str


class Checkpoint(NamedTuple):
    number: int
    attempt: int
    path: str
    step: int | None


class AttemptEnd(NamedTuple):
    number: int
    attempt: int
    state: str
    failure: str | None
    message: str | None
    traceback: str | None
    at_last_report: bool
    """Whether it ended when it last reported, rather than now: nothing was heard of it since."""


class StopRequest(NamedTuple):
    number: int
    attempt: int
    cause: str


class SeenNode(Protocol):
    """A machine of the cluster, see `execute.executor.Node`."""

    @property
    def key(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def total(self) -> Mapping[str, float]: ...
    @property
    def free(self) -> Mapping[str, float]: ...


@dataclass(slots=True)
class StudyChanges(TrialChanges):
    """The unit of work of one step: what the search changed, and what became of attempts, requests and the study."""

    adopts: bool = False
    """Whether attempts that an earlier lease left behind become ours, to be ended or gone on with."""
    opened: list[OpenedAttempt] = field(default_factory=list)
    alive: list[AliveAttempt] | None = None
    """Attempts whose leases are renewed, before those that have run out are looked for; None: not this time."""
    started: list[StartedAttempt] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)
    log_cuts: dict[tuple[int, int], LogCut] = field(default_factory=dict)
    """(trial number, attempt) -> what is left out of its log."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    stops: list[StopRequest] = field(default_factory=list)
    ends: list[AttemptEnd] = field(default_factory=list)
    cursors: dict[tuple[int, int], int] = field(default_factory=dict)
    """(trial number, attempt) -> last outbox number contained in this batch."""
    answered: dict[int, str] = field(default_factory=dict)
    """Command id -> what came of it."""
    nodes: Sequence[SeenNode] | None = None
    """What the cluster has at the moment; None: not this time."""
    study_state: tuple[StudyState, str] | None = None
    """New state of the study and its reason."""
    spec: str | None = None
    """The study's changed spec, as JSON."""
    active_s: float = 0.0
    """Running time to add to the study."""

    def describe(self) -> dict[str, Any]:
        """What a checker needs to know of it, see `tunesvc.instrumentation.event_log`."""
        return {
            "adopts": self.adopts,
            "trials": [trial.number for trial in self.trials],
            "opened": [(o.number, o.attempt, o.after_step) for o in self.opened],
            "started": [(s.number, s.attempt, s.pid) for s in self.started],
            "reports": [(r.number, r.attempt, r.step) for r in self.reports],
            "cursors": [(*key, cursor) for key, cursor in self.cursors.items()],
            "ends": [(e.number, e.attempt, e.state, e.failure) for e in self.ends],
            "finished": [(end.number, end.state) for end in self.finished],
            "decisions": [(d.number, d.kind) for d in self.decisions],
            "study_state": self.study_state and self.study_state[0],
        }

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    @property
    def shows(self) -> bool:
        """Whether somebody who looks at the study sees anything of it: more than leases renewed and time passed."""
        unseen = ("alive", "cursors", "nodes", "active_s")
        return any(getattr(self, one.name) for one in fields(self) if one.name not in unseen)
