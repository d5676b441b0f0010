"""What the read side returns: frozen rows, plain values, times in UTC. Imports no SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tunesvc import policy
from tunesvc.db.schema.states import UNFINISHED, AttemptState, StudyState
from tunesvc.search.exhaustion import is_exhausted
from tunesvc.spec import Budget, ParamValue, StudySpec, as_given
from tunesvc.spec.model import Goal
from tunesvc.util import formatting


class StudyStatus(StrEnum):
    """A study's state as it is shown: that which is stored, and `interrupted`."""

    CREATED = "created"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It is to run, but no coordinator runs it: `resume` continues it."""
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @classmethod
    def of(cls, state: StudyState, coordinator: str | None) -> StudyStatus:
        """Return the state that is shown of a study that this coordinator runs, or none."""
        is_interrupted = state is StudyState.RUNNING and coordinator is None
        return cls.INTERRUPTED if is_interrupted else cls(state)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (StudyStatus.FINISHED, StudyStatus.STOPPED, StudyStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Objective:
    """One number that a study optimises."""

    name: str
    goal: Goal

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
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
    """They hold nothing and may be promoted."""
    queued: int = 0
    """They have a worker that has not begun them."""
    interrupted: int = 0
    """They ran, and no coordinator runs their study now."""
    stopped: int = 0
    """They were ended, or taken back, before they reported anything."""

    @property
    def done(self) -> int:
        """Trials that are over."""
        return self.complete + self.pruned + self.failed + self.stopped

    @property
    def total(self) -> int:
        """All trials."""
        return self.done + self.waiting + self.queued + self.running + self.interrupted + self.paused


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
    """Of the best feasible trial; None with several objectives, or when there is none yet."""
    budget: Budget | None
    """None for a study made through Optuna's API."""
    fraction: float
    """Share of the tightest budget that is spent, 0 ... 1."""
    active_s: float
    """How long coordinators have been running it."""
    gpu_hours: float
    """GPUs requested × hours held, over all attempts, running ones included."""
    coordinator: str | None
    """`host:pid` of the coordinator that holds the lease now."""
    created_at: datetime
    ended_at: datetime | None
    owner: str
    """Who made it; empty when nobody knows."""
    tags: tuple[str, ...]
    note: str
    closing: str | None
    """`pause` or `stop`, which its coordinator is asked for and has not brought to its end."""

    @property
    def left_s(self) -> float | None:
        """Estimate of the time until its budget is spent; None when nobody runs it, and while unknown."""
        return None if self.coordinator is None else policy.time_left_s(self.fraction, self.active_s)

    @property
    def is_failure(self) -> bool:
        """Whether it ended without a single trial that came to a result."""
        only_failed = self.counts.failed > 0 and self.counts.complete + self.counts.pruned == 0
        return self.state is StudyStatus.FAILED or (self.state is StudyStatus.FINISHED and only_failed)

    @property
    def unattended(self) -> bool:
        """Whether it wants to run, but no coordinator runs it."""
        return self.state is StudyStatus.INTERRUPTED


@dataclass(frozen=True, slots=True)
class StudyView(StudyRow):
    """A study with its spec."""

    spec: StudySpec | None
    """None for a study made through Optuna's API."""
    source_text: str | None
    source_dir: str | None

    @property
    def has_program(self) -> bool:
        """Whether any process can run it: false for a study whose objective only the Python that started it has."""
        return self.spec is None or self.spec.has_program

    @property
    def resume_command(self) -> str:
        """What continues it, in a shell or in Python."""
        return formatting.resume_command(self.name, has_program=self.has_program)

    @property
    def confirm_command(self) -> str:
        """What runs its finalists again, in a shell or in Python."""
        return formatting.confirm_command(self.name, has_program=self.has_program)

    @property
    def is_exhausted(self) -> bool:
        """Whether every configuration has been tried: more budget changes nothing, a wider space does."""
        return self.spec is not None and is_exhausted(self.spec, self.counts.done)

    @property
    def shared_seeds(self) -> int | None:
        """How many training seeds its trials share in turns; None when each has its own."""
        return self.spec.seeds if self.spec else None

    def as_given(self, rows: Iterable[TrialRow]) -> tuple[TrialRow, ...]:
        """Return trials with the parameters as their objective got them: choices that are lists as lists."""
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
    """One per objective; NaN and infinities as they were recorded."""
    params: Mapping[str, ParamValue]
    """In the order in which they were drawn; conditional ones that do not exist are absent."""
    feasible: bool
    """Whether it keeps every outcome constraint."""
    last_step: int | None
    last_value: float | None
    """The first objective at `last_step`, the newest report."""
    attempts: int
    failure: str | None
    """Class of the last attempt's failure."""
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    """Its attempts together, without the time between them; until now where it still runs, None where interrupted."""
    tags: tuple[str, ...] = ()
    note: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Other numbers that it returned, or else reported last."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """How far it exceeds each constraint, by metric and bound: `cost.max`; kept where <= 0."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """User attributes that are no numbers."""

    @property
    def is_finished(self) -> bool:
        """Whether it does not change any more."""
        return self.state not in UNFINISHED

    @property
    def violations(self) -> dict[str, float]:
        """The constraints that it breaks, and by how much."""
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
    """What somebody asked of a study."""

    command_id: int
    kind: str
    """One of `tables.COMMANDS`."""
    text: str
    """In words."""
    asked_by: str
    asked_at: datetime
    done_at: datetime | None
    """None while it waits for a coordinator."""
    answer: str
    """What came of it; empty when it was carried out as asked."""

    @property
    def refused(self) -> bool:
        """Whether it made no sense."""
        return self.answer.startswith("refused: ")


@dataclass(frozen=True, slots=True)
class Labels:
    """What studies can be filtered by."""

    owners: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialDetail:
    """A trial with all that happened to it."""

    row: TrialRow
    attempts: tuple[AttemptRow, ...]
    decisions: tuple[DecisionRow, ...]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One report. Where several attempts reported a step, this is the newest attempt's."""

    step: int
    value: float | None
    """The first objective's metric; None when the report did not bear it."""
    metrics: Mapping[str, float]
    """The other metrics."""
    attempt: int
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class ReportCurve:
    """A trial's reports by step."""

    trial_number: int
    points: tuple[Point, ...]

    def of(self, metric: str) -> ReportCurve:
        """The same by another metric than the first."""
        return replace(self, points=tuple(replace(point, value=point.metrics.get(metric)) for point in self.points))


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
        """Where `logs(after=...)` goes on."""
        return (self.attempt, self.seq)
