"""The changes of one step of a study, as frozen rows, committed in one transaction.

Plain values only; `tunesvc.db.study_writer` turns each list into one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

from tunesvc.db.schema.states import StudyState
from tunesvc.db.trial_changes import TrialChanges


class LaunchRecord(NamedTuple):
    number: int
    attempt: int
    cpus: float
    gpus: float
    after_step: int
    """The attempt resumes after this step of an earlier one, whose later reports no longer count;
    -1: it starts from the beginning."""
    stall_s: float
    """Duration of its lease: the longest time without a heartbeat."""


class HeartbeatRecord(NamedTuple):
    number: int
    attempt: int
    stall_s: float
    """Duration of the renewed lease."""


class StartRecord(NamedTuple):
    number: int
    attempt: int
    node: str
    pid: int
    devices: tuple[str, ...]
    code: str
    bundle_nodes: tuple[str, ...] = ()


class Report(NamedTuple):
    number: int
    attempt: int
    step: int
    value: float | None
    metrics: Mapping[str, float]
    """Metrics other than the first objective's."""


class LogLine(NamedTuple):
    number: int
    attempt: int
    seq: int
    stream: str
    text: str


class LogCut(NamedTuple):
    """A line that replaces an attempt's log lines `first` to `last`."""

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


class EndRecord(NamedTuple):
    number: int
    attempt: int
    state: str
    failure: str | None
    message: str | None
    traceback: str | None
    at_last_report: bool
    """True if it ended at its last report, not now: no heartbeat has come since."""


class StopRecord(NamedTuple):
    number: int
    attempt: int
    cause: str


class SeenNode(Protocol):
    """A node of the cluster, see `execution.executor.NodeInfo`."""

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
    """The unit of work of a step: changes of the search, of attempts, commands and study."""

    adopts: bool = False
    """True to take over the live attempts of an earlier lease, to continue or end them."""
    opened: list[LaunchRecord] = field(default_factory=list)
    alive: list[HeartbeatRecord] | None = None
    """Attempts with leases to renew, before a check for expired ones; None: neither."""
    started: list[StartRecord] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)
    log_cuts: dict[tuple[int, int], LogCut] = field(default_factory=dict)
    """(trial number, attempt) -> the part of its log that is left out."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    stops: list[StopRecord] = field(default_factory=list)
    ends: list[EndRecord] = field(default_factory=list)
    cursors: dict[tuple[int, int], int] = field(default_factory=dict)
    """(trial number, attempt) -> last outbox number in these changes."""
    answered: dict[int, str] = field(default_factory=dict)
    """Command id -> its answer."""
    nodes: Sequence[SeenNode] | None = None
    """The cluster's current nodes; None: not recorded in this step."""
    study_state: tuple[StudyState, str] | None = None
    """New state of the study and its reason."""
    spec: str | None = None
    """The study's changed spec, as JSON."""
    active_s: float = 0.0
    """Running time to add to the study."""

    def describe(self) -> dict[str, Any]:
        """Return what a checker needs, see `tunesvc.instrumentation.event_log`."""
        return {
            "adopts": self.adopts,
            "trials": [trial.number for trial in self.trials],
            "opened": [(o.number, o.attempt, o.after_step) for o in self.opened],
            "started": [(s.number, s.attempt, s.pid) for s in self.started],
            "reports": [(r.number, r.attempt, r.step) for r in self.reports],
            "checkpoints": [(c.number, c.attempt, c.step) for c in self.checkpoints],
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
        """True if a viewer can see a difference: more than renewed leases and elapsed time."""
        unseen = ("alive", "cursors", "nodes", "active_s")
        return any(getattr(self, one.name) for one in fields(self) if one.name not in unseen)
