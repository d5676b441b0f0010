"""State of each unfinished trial: its live attempt, and what earlier ones left."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesvc.coordinator.attempt_state.log_window import LogWindow
from tunesvc.db.recovery import StoredExecution
from tunesvc.execution.executor import AttemptId, Failed, Outcome
from tunesvc.policy import Failure, StopCause
from tunesvc.spec import Metric, ParamValue
from tunesvc.trial import is_better


@dataclass(slots=True)
class MetricTracker:
    """Last and best value of each metric; steps may arrive in any order."""

    goals: Mapping[str, str]
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Greatest step and its value, by metric."""
    best: dict[str, float] = field(default_factory=dict)
    values: dict[str, dict[int, float]] | None = None
    """All values, by metric and step; kept only where steps are folds or repeats."""

    def copy(self) -> MetricTracker:
        """Return an independent copy."""
        values = self.values and {name: dict(found) for name, found in self.values.items()}
        return MetricTracker(self.goals, dict(self.last), dict(self.best), values)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one report."""
        for name, value in metrics.items():
            if name not in self.last or step >= self.last[name][0]:
                self.last[name] = (step, value)
            goal = self.goals.get(name, "minimize")
            if name not in self.best or is_better(value, self.best[name], goal):
                self.best[name] = value
            if self.values is not None:
                self.values.setdefault(name, {})[step] = value

    def samples(self, name: str) -> list[float]:
        """Return a metric's values on the folds or repeats so far."""
        return list((self.values or {}).get(name, {}).values())

    def result(self, metric: Metric) -> float | None:
        """Return the metric's best or last value, as its `take` says; None if never reported."""
        if metric.name not in self.last:
            return None
        if metric.take == "best":
            return self.best[metric.name]
        return self.last[metric.name][1]

    def last_of(self, name: str) -> float | None:
        """Return the metric's value at its greatest step, or None if it was never reported."""
        return self.last[name][1] if name in self.last else None


@dataclass(slots=True)
class LiveAttempt:
    """An attempt that has not ended. Times are seconds on the coordinator's clock."""

    id: AttemptId
    number: int
    """The trial's number."""
    params: Mapping[str, ParamValue]
    curve: MetricTracker
    cpus: float
    gpus: float
    opened_s: float
    started_s: float | None = None
    last_report_s: float = 0.0
    """Time of its last report, or of its start."""
    cursor: int = 0
    """Number of the last event that was handled."""
    devices: tuple[str, ...] = ()
    log: LogWindow = field(default_factory=LogWindow)
    stop_cause: StopCause | None = None
    stop_reason: str = ""
    forecast: float | None = None
    """Mean over all folds that the pruner expected when it stopped the attempt."""
    stop_by_s: float | None = None
    """Deadline of a requested stop; the attempt is killed after it."""
    killed: bool = False
    finished: bool = False
    """True once the outcome is known; later events are refused."""
    silent_since_s: float | None = None
    """Time of its last report to an earlier coordinator; None after its first heartbeat to us."""
    unchecked_steps: list[int] = field(default_factory=list)
    """Reported steps that the pruner has not seen yet."""
    forced_outcome: Failed | None = None
    """Failure that overrides the outcome that the attempt reports."""
    leased_s: float = -math.inf
    """Time of the last renewal of its lease."""
    heartbeat_round: int = -1
    """Last round of renewals in which its heartbeat was seen."""
    until: int | None = None
    """Step at or after which a member of a population pauses; None for any other trial."""

    def key(self) -> tuple[int, int]:
        """Return trial number and attempt number, which identify an attempt in `StudyChanges`."""
        return self.number, self.id.number


@dataclass(frozen=True, slots=True)
class Ending:
    """An attempt that ended in this step, with its outcome."""

    live: LiveAttempt
    outcome: Outcome


@dataclass(slots=True)
class TrialRecord:
    """State that a trial's earlier attempts left for its next one."""

    attempts: int = 0
    failures: Counter[Failure] = field(default_factory=Counter)
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    """Step of the checkpoint, or of the last fold or repeat with a finite value."""
    curve: MetricTracker | None = None
    """Metrics at the checkpoint or fold, from which the next attempt resumes."""

    @property
    def after_step(self) -> int:
        """The step after which the next attempt resumes; -1 if it starts from the beginning."""
        return -1 if self.checkpoint_step is None else self.checkpoint_step


class HeldTime:
    """Seconds of one resource that attempts hold, updated only when they begin and end.

    The total at time t is `amount * t + offset`, so a look-up does not visit the live attempts.
    """

    def __init__(self) -> None:
        self._amount = self._offset_s = 0.0

    def begin(self, amount: float, at_s: float) -> None:
        """Count an amount as held from `at_s` on."""
        self._amount += amount
        self._offset_s -= amount * at_s

    def end(self, amount: float, at_s: float) -> None:
        """Count an amount as released at `at_s`."""
        self.begin(-amount, at_s)

    def at(self, now_s: float) -> float:
        """Return the resource seconds held until `now_s`."""
        return self._amount * now_s + self._offset_s


class OpenTrials:
    """Live attempts by id, and the records of unfinished trials."""

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        earlier_cpu_hours: float = 0.0,
        earlier_gpu_hours: float = 0.0,
        is_stepwise: bool = False,
    ) -> None:
        """Begin without attempts.

        Args:
            metrics: the study's.
            earlier_cpu_hours: use by attempts that ended in earlier runs of the study.
            earlier_gpu_hours: likewise.
            is_stepwise: True if a trial's steps are folds or repeats.
        """
        self.is_stepwise = is_stepwise
        self._goals = {metric.name: metric.goal for metric in metrics}
        self._objectives = [metric.name for metric in metrics]
        self._earlier_cpu_hours = earlier_cpu_hours
        self._earlier_gpu_hours = earlier_gpu_hours
        self._live: dict[AttemptId, LiveAttempt] = {}
        self._reported: OrderedDict[AttemptId, LiveAttempt] = OrderedDict()
        self._cpu_time = HeldTime()
        self._gpu_time = HeldTime()
        self._records: dict[int, TrialRecord] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveAttempt]:
        return iter(list(self._live.values()))

    def get(self, attempt: AttemptId) -> LiveAttempt | None:
        """Return the live attempt of that id, or None when it has ended or is unknown."""
        return self._live.get(attempt)

    def of_trial(self, number: int) -> LiveAttempt | None:
        """Return the live attempt of a trial, or None."""
        for live in self._live.values():
            if live.number == number:
                return live
        return None

    def gpu_s(self, now_s: float) -> float:
        """Return the GPU seconds that this run's attempts have used, ended ones included.

        An adopted attempt without a heartbeat since counts until its last known report.
        """
        return self._gpu_time.at(now_s)

    def gpu_hours(self, now_s: float) -> float:
        """Return the GPU hours that all attempts of the study have used."""
        return self._earlier_gpu_hours + self.gpu_s(now_s) / 3600

    def cpu_hours(self, now_s: float) -> float:
        """Return the hours of cores that all attempts of the study have used, as `gpu_hours`."""
        return self._earlier_cpu_hours + self._cpu_time.at(now_s) / 3600

    def record_of(self, number: int) -> TrialRecord:
        """Return the trial's record; an empty one for a new trial."""
        return self._records.setdefault(number, TrialRecord())

    def is_evaluated(self, metrics: Mapping[str, float]) -> bool:
        """Return True if a fold or repeat has a finite value of each objective."""
        return all(math.isfinite(metrics.get(name, math.nan)) for name in self._objectives)

    def new_curve(self) -> MetricTracker:
        """Return a tracker without reports."""
        return MetricTracker(self._goals, values={} if self.is_stepwise else None)

    def open(
        self,
        trial_id: int,
        number: int,
        params: Mapping[str, ParamValue],
        *,
        cpus: float,
        gpus: float,
        now_s: float,
    ) -> LiveAttempt:
        """Begin the trial's next attempt."""
        record = self.record_of(number)
        record.attempts += 1
        curve = self.new_curve() if record.curve is None else record.curve.copy()
        attempt = AttemptId(trial_id, record.attempts)
        live = LiveAttempt(attempt, number, params, curve, cpus, gpus, opened_s=now_s)
        self._live[live.id] = live
        return live

    def adopt(
        self,
        trial_id: int,
        stored: StoredExecution,
        number: int,
        params: Mapping[str, ParamValue],
        *,
        now_s: float,
    ) -> LiveAttempt:
        """Add an attempt that an earlier coordinator opened, in its last recorded state."""
        live = LiveAttempt(
            AttemptId(trial_id, stored.number),
            number,
            params,
            self.new_curve(),
            stored.cpus,
            stored.gpus,
            opened_s=now_s,
            started_s=None if stored.running_s is None else now_s - stored.running_s,
            last_report_s=now_s,
            cursor=stored.cursor,
            silent_since_s=now_s - (stored.silent_s or 0.0),
        )
        if live.started_s is not None and live.silent_since_s is not None:
            self._hold(live, live.started_s)
            self._release(live, live.silent_since_s)
        self._live[live.id] = live
        return live

    def start(self, live: LiveAttempt, now_s: float) -> None:
        """Record that the attempt has its resources and runs."""
        live.started_s = live.last_report_s = now_s
        self._hold(live, now_s)

    def _hold(self, live: LiveAttempt, at_s: float) -> None:
        self._cpu_time.begin(live.cpus, at_s)
        self._gpu_time.begin(live.gpus, at_s)

    def _release(self, live: LiveAttempt, at_s: float) -> None:
        self._cpu_time.end(live.cpus, at_s)
        self._gpu_time.end(live.gpus, at_s)

    def record_heartbeat(self, live: LiveAttempt) -> None:
        """Record that the attempt lives: an adopted one has held its resources all the time."""
        if live.silent_since_s is not None and live.started_s is not None:
            self._hold(live, live.silent_since_s)
        live.silent_since_s = None

    def add_report(self, live: LiveAttempt, step: int) -> None:
        """Queue a reported step for the pruner."""
        live.unchecked_steps.append(step)
        self._reported[live.id] = live

    def pop_reported(self) -> LiveAttempt | None:
        """Remove and return the attempt with the oldest queued reports, or None."""
        return self._reported.popitem(last=False)[1] if self._reported else None

    def close(self, live: LiveAttempt, now_s: float) -> None:
        """Remove an attempt that ended; its trial's record stays."""
        del self._live[live.id]
        self._reported.pop(live.id, None)
        if live.started_s is not None and live.silent_since_s is None:
            self._release(live, now_s)

    def forget(self, number: int) -> None:
        """Drop the record of a finished trial."""
        self._records.pop(number, None)
