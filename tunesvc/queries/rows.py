"""Rows that queries return: frozen, with plain values and times in UTC. Imports no SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Generic, TypeVar

from tunesvc import policy
from tunesvc.db.schema.states import UNFINISHED, AttemptState, Priority, StudyState
from tunesvc.spec import Budget, ParamValue, Prices, StudySpec, as_given
from tunesvc.spec.goals import Goal, orient
from tunesvc.util import formatting

Row = TypeVar("Row")


def from_row(kind: Callable[..., Row], row: Any, **others: Any) -> Row:
    """Make a dataclass of the columns that are named as its fields, and of `others`."""
    columns = row._mapping
    values = {name: columns[name] for name in _names_of(kind) if name in columns}
    return kind(**{**values, **others})


@cache
def _names_of(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@dataclass(frozen=True, slots=True)
class RowPage(Generic[Row]):
    """A page of rows in order."""

    rows: tuple[Row, ...]
    after: str | None = None
    """Key after which the next page starts; None on the last page."""


class StudyStatus(StrEnum):
    """State of a study as shown: the stored state, `queued` or `interrupted`."""

    CREATED = "created"
    QUEUED = "queued"
    """It should run and was submitted: a server takes it."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It should run, but no coordinator runs it; `resume` continues it."""
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @classmethod
    def of(
        cls,
        state: StudyState,
        coordinator: str | None,
        submission: SubmissionRow | None,
    ) -> StudyStatus:
        """Return the shown state of a study; `coordinator` is None if no coordinator runs it."""
        if submission is not None and submission.position is not None:
            return cls.QUEUED
        is_interrupted = state is StudyState.RUNNING and coordinator is None
        return cls.INTERRUPTED if is_interrupted else cls(state)

    @property
    def is_terminal(self) -> bool:
        """True if the state does not change by itself."""
        return self in (StudyStatus.FINISHED, StudyStatus.STOPPED, StudyStatus.FAILED)


_AT_REST = (StudyStatus.FINISHED, StudyStatus.STOPPED, StudyStatus.FAILED, StudyStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class Objective:
    """A number that a study optimises."""

    name: str
    goal: Goal
    step: str = "step"
    """Name of a step of its curves: a fold or repeat where those are a trial's steps."""

    @property
    def orientation(self) -> float:
        """Factor that turns a value into a loss, of which small is good."""
        return orient(self.goal)

    @property
    def maximize(self) -> bool:
        """True if larger values are better."""
        return self.goal == "maximize"


@dataclass(frozen=True, slots=True)
class Counts:
    """Trials of a study by state."""

    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    paused: int = 0
    """They use no resources and may be promoted."""
    queued: int = 0
    """They wait in a worker's queue."""
    interrupted: int = 0
    """They ran, and no coordinator runs their study now."""
    stopped: int = 0
    """They were stopped or cancelled before their first report."""

    @property
    def done(self) -> int:
        """Number of finished trials."""
        return self.complete + self.pruned + self.failed + self.stopped

    @property
    def total(self) -> int:
        """Number of all trials."""
        unfinished = self.waiting + self.queued + self.running + self.interrupted + self.paused
        return self.done + unfinished


@dataclass(frozen=True, slots=True)
class SubmissionRow:
    """A study's place among the studies that servers run."""

    position: int | None
    """Its place in the queue, from 1; None while it does not wait for a server."""
    queued_at: datetime
    """Since when it waits, or waited the last time."""
    priority: Priority
    submitted_by: str
    submitted_at: datetime
    snapshot: str | None
    """Digest of its folder's archive; None if it runs from its folder itself."""
    problem: str
    """Reason why it could not be started the last time; empty if it could."""
    retry_at: datetime | None
    """A server tries again then; None for at once."""
    lost_coordinator: str | None
    """`host:pid` of the server that ran it and gives no sign of life."""

    @property
    def reason(self) -> str:
        """Reason why it waits, as a clause; empty while it does not."""
        if self.position is None:
            return ""
        if self.problem:
            again = "" if self.retry_at is None else f"; next try {self.retry_at:%H:%M:%S} UTC"
            return f"it could not be started: {self.problem.rstrip('.')}{again}"
        if self.lost_coordinator is not None:
            return f"{self.lost_coordinator} gives no sign of life: another server takes it"
        return "it waits for a server with room"


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study in a list."""

    study_id: int
    name: str
    state: StudyStatus
    reason: str
    objectives: tuple[Objective, ...]
    counts: Counts
    best_value: float | None
    """Value of the best feasible trial; None with several objectives, or without one yet."""
    budget: Budget | None
    """None for a study made through Optuna's API."""
    fraction: float
    """Spent share of the tightest budget, between 0 and 1."""
    active_s: float
    """Time during which coordinators ran it."""
    gpu_hours: float
    """GPUs requested × hours, over all attempts including running ones."""
    prices: Prices | None
    cost: float | None
    """Cost of all attempts including running ones; None without prices."""
    coordinator: str | None
    """`host:pid` of the coordinator that holds the lease now."""
    created_at: datetime
    ended_at: datetime | None
    owner: str
    """User that created it; empty if unknown."""
    project: str
    """Project whose members may view it; empty without one."""
    tags: tuple[str, ...]
    note: str
    closing: str | None
    """Requested `pause` or `stop` that its coordinator has not completed yet."""
    submission: SubmissionRow | None
    """None for a study that `tune run` runs: servers leave it alone."""

    @property
    def cost_text(self) -> str:
        """Its cost with the currency; empty without prices."""
        return self.money(self.cost)

    def money(self, amount: float | None) -> str:
        """Format an amount with the currency; empty without prices or an amount."""
        return "" if self.prices is None or amount is None else self.prices.format(amount)

    @property
    def left_s(self) -> float | None:
        """Estimate of the time until its budget is spent; None if unknown or not running."""
        if self.coordinator is None:
            return None
        return policy.time_left_s(self.fraction, self.active_s)

    @property
    def queued(self) -> SubmissionRow | None:
        """Its place in the queue; None while it does not wait for a server."""
        return self.submission if self.state is StudyStatus.QUEUED else None

    @property
    def is_failure(self) -> bool:
        """True if it ended without a single result."""
        if self.state is StudyStatus.FINISHED:
            return self.counts.failed > 0 and self.counts.complete + self.counts.pruned == 0
        return self.state is StudyStatus.FAILED

    @property
    def is_at_rest(self) -> bool:
        """True if nothing of it runs or will run until a request changes that."""
        return self.state in _AT_REST

    @property
    def state_and_reason(self) -> str:
        """Its state, with the reason if there is one."""
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)

    @property
    def unattended(self) -> bool:
        """True if it should run, but no coordinator runs it."""
        return self.state is StudyStatus.INTERRUPTED


@dataclass(frozen=True, slots=True)
class StudyView(StudyRow):
    """A study with its spec."""

    spec: StudySpec | None
    """None for a study made through Optuna's API."""
    source_text: str | None
    source_dir: str | None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Git commit, Python and packages of the machine that submitted it, see `util.provenance`."""

    @property
    def origin(self) -> str:
        """Commit and Python that it was submitted with, as a clause; empty if unknown."""
        git = self.provenance.get("git")
        git = git if isinstance(git, Mapping) else {}  # clients of the API send what they like
        parts = []
        if commit := str(git.get("commit", ""))[:12]:
            branch = f" of {git['branch']}" if git.get("branch") else ""
            changed = ", with changes that are in no commit" if git.get("dirty") else ""
            parts.append(f"commit {commit}{branch}{changed}")
        if python := self.provenance.get("python"):
            parts.append(f"Python {python}")
        return "; ".join(parts)

    @property
    def has_program(self) -> bool:
        """True if any process can run it.

        False if its objective exists only in the Python process that started it.
        """
        return self.spec is None or self.spec.has_program

    @property
    def resume_command(self) -> str:
        """Command that continues it, in a shell or in Python."""
        return formatting.resume_command(self.name, has_program=self.has_program)

    @property
    def confirm_command(self) -> str:
        """Command that runs its finalists again, in a shell or in Python."""
        return formatting.confirm_command(self.name, has_program=self.has_program)

    @property
    def is_exhausted(self) -> bool:
        """True if every configuration has been tried; only a wider space adds new ones."""
        from tunesvc.search.exhaustion import is_exhausted  # imports Optuna

        return self.spec is not None and is_exhausted(self.spec, self.counts.done)

    @property
    def shared_blocks(self) -> int | None:
        """Number of sets of folds or repeats that trials have in turns; None if all are alike."""
        return self.spec.shared_blocks if self.spec else None

    @property
    def shared_blocks_text(self) -> str:
        """That number with its noun, such as `5 folds`; empty without."""
        return self.spec.shared_blocks_text if self.spec else ""

    def standard_error(self, row: TrialRow, objective: Objective) -> float | None:
        """Return the standard error of a trial's mean over folds or repeats; None without."""
        if self.spec is None or not self.spec.is_stepwise or not row.values:
            return None
        return row.metrics.get(self.spec.standard_error_of(objective.name))

    @property
    def has_population(self) -> bool:
        """True if its trials continue each other, so that parameters alone decide no value."""
        return self.spec is not None and self.spec.search is not None

    def as_given(self, rows: Iterable[TrialRow]) -> tuple[TrialRow, ...]:
        """Return trials with parameters as their objective received them: list choices as lists."""
        parameters = self.spec.parameters if self.spec else {}
        return tuple(replace(row, params=as_given(row.params, parameters)) for row in rows)


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial in a list."""

    trial_id: int
    number: int
    state: str
    """`waiting`, `queued`, `running`, `interrupted`, `paused`, `complete`, `pruned`, `failed` or
    `stopped`."""
    values: tuple[float, ...] | None
    """One value per objective; NaN and infinities as recorded."""
    params: Mapping[str, ParamValue]
    """Parameters in the order of their suggestion, without those whose condition is false."""
    feasible: bool
    """True if it satisfies every outcome constraint."""
    last_step: int | None
    last_value: float | None
    """First objective at `last_step`, the newest report."""
    attempts: int
    failure: str | None
    """Class of the last attempt's failure."""
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    """Total time of its attempts, until now for a running one; None if interrupted."""
    cost: float | None = None
    """Cost of all its attempts, failed ones too; None without prices."""
    tags: tuple[str, ...] = ()
    note: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Other numbers that it returned, or else last reported."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Excess over each constraint, by metric and bound: `cost.max`; satisfied if <= 0."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """User attributes that are not numbers."""

    @property
    def is_finished(self) -> bool:
        """True if it does not change any more."""
        return self.state not in UNFINISHED

    @property
    def violations(self) -> dict[str, float]:
        """Excess over each violated constraint."""
        return {name: excess for name, excess in self.constraints.items() if not excess <= 0}

    @property
    def value(self) -> float | None:
        """The first objective's value."""
        return self.values[0] if self.values else None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One execution of a trial."""

    trial_number: int
    number: int
    state: AttemptState
    opened_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cpus: float
    gpus: float
    node: str | None
    pid: int | None
    devices: tuple[str, ...]
    stop_cause: str | None
    failure: str | None
    message: str | None
    traceback: str | None
    checkpoint: str | None
    checkpoint_step: int | None


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A recorded choice with its reason."""

    decision_id: int
    trial_number: int | None
    kind: str
    reason: str
    details: Mapping[str, Any]
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request to a study."""

    command_id: int
    kind: str
    """One of `tables.COMMANDS`."""
    text: str
    """The request in words."""
    asked_by: str
    asked_at: datetime
    done_at: datetime | None
    """None while it waits for a coordinator."""
    answer: str
    """Result; empty if it was carried out as requested."""

    @property
    def refused(self) -> bool:
        """True if it could not be carried out."""
        return self.answer.startswith("refused: ")


@dataclass(frozen=True, slots=True)
class Labels:
    """Owners and tags by which studies can be filtered."""

    owners: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialDetail:
    """A trial with its attempts, decisions and attributes."""

    row: TrialRow
    attempts: tuple[AttemptRow, ...]
    decisions: tuple[DecisionRow, ...]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One report. If several attempts reported a step, the newest attempt's."""

    step: int
    value: float | None
    """Metric of the first objective; None if the report did not contain it."""
    metrics: Mapping[str, float]
    """Other metrics."""
    attempt: int
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class ReportCurve:
    """Reports of a trial by step."""

    trial_number: int
    points: tuple[Point, ...]

    def of(self, metric: str) -> ReportCurve:
        """Return the curve of another metric."""
        points = [replace(point, value=point.metrics.get(metric)) for point in self.points]
        return replace(self, points=tuple(points))


@dataclass(frozen=True, slots=True)
class LogRow:
    """A piece of an attempt's output."""

    attempt: int
    seq: int
    stream: str
    """`stdout` or `stderr`."""
    text: str
    logged_at: datetime

    @property
    def cursor(self) -> tuple[int, int]:
        """Position for `logs(after=...)` to continue after this piece."""
        return (self.attempt, self.seq)
