"""What the coordinator remembers of each trial that is under way."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesvc.coordinator.log_window import LogWindow
from tunesvc.db.recovery import StoredAttempt
from tunesvc.execution.executor import AttemptId, Failed
from tunesvc.policy import Failure, StopCause
from tunesvc.spec import Metric, ParamValue
from tunesvc.trial import is_better


@dataclass(slots=True)
class MetricTracker:
    """Last and best value of each metric, whatever the order in which steps arrive."""

    goals: Mapping[str, str]
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def copy(self) -> MetricTracker:
        """A curve that goes its own way from here."""
        return MetricTracker(self.goals, dict(self.last), dict(self.best))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in one report."""
        for name, value in metrics.items():
            if name not in self.last or step >= self.last[name][0]:
                self.last[name] = (step, value)
            if name not in self.best or is_better(value, self.best[name], self.goals.get(name, "minimize")):
                self.best[name] = value

    def taken(self, metric: Metric) -> float | None:
        """The metric's result by its `take`, or None when it was never reported."""
        if metric.name not in self.last:
            return None
        return self.best[metric.name] if metric.take == "best" else self.last[metric.name][1]

    def last_of(self, name: str) -> float | None:
        """The metric's value at its greatest step."""
        return self.last[name][1] if name in self.last else None


@dataclass(slots=True)
class LiveAttempt:
    """An attempt that is not over. Times are seconds on the coordinator's clock."""

    id: AttemptId
    number: int
    """The trial's number."""
    params: Mapping[str, ParamValue]
    curve: MetricTracker
    gpus: float
    opened_s: float
    started_s: float | None = None
    heard_s: float = 0.0
    """When it last reported, or started."""
    cursor: int = 0
    """The last event taken in."""
    devices: tuple[str, ...] = ()
    log: LogWindow = field(default_factory=LogWindow)
    stop_cause: StopCause | None = None
    stop_reason: str = ""
    stop_by_s: float | None = None
    """When it is killed, if it has not obeyed by then."""
    killed: bool = False
    over: bool = False
    """Whether its outcome is known; whatever comes after that is refused."""
    last_word_s: float | None = None
    """When it last reported to an earlier coordinator, as long as nothing was heard of it since."""
    unjudged: list[int] = field(default_factory=list)
    """Steps that it reported since the pruner last looked."""
    doom: Failed | None = None
    """Why it is being ended as a failure, whatever it says itself."""
    leased_s: float = -math.inf
    """When its lease was last renewed."""
    sign_round: int = -1
    """The last round of renewals before which it had given a sign of life."""

    def key(self) -> tuple[int, int]:
        """Trial number and attempt number, as batches name an attempt."""
        return self.number, self.id.number


@dataclass(slots=True)
class TrialRecord:
    """What earlier attempts left to a trial that is not over."""

    attempts: int = 0
    failures: Counter[Failure] = field(default_factory=Counter)
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    curve: MetricTracker | None = None
    """As it was at the checkpoint, from which the next attempt goes on."""

    @property
    def after_step(self) -> int:
        """The step after which the next attempt goes on; -1: from the start."""
        return -1 if self.checkpoint is None or self.checkpoint_step is None else self.checkpoint_step


class GpuTime:
    """GPU seconds that attempts have held, counted as they begin and end: what runs meanwhile costs nothing."""

    def __init__(self) -> None:
        self._gpus = self._offset_s = 0.0

    def begin(self, gpus: float, at_s: float) -> None:
        """So many GPUs are held from this moment on."""
        self._gpus += gpus
        self._offset_s -= gpus * at_s

    def end(self, gpus: float, at_s: float) -> None:
        """They are held no longer."""
        self.begin(-gpus, at_s)

    def at(self, now_s: float) -> float:
        """GPU seconds until now."""
        return self._gpus * now_s + self._offset_s


class LiveAttempts:
    """Live attempts by id, and the histories of the trials that are not over."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._goals = {metric.name: metric.goal for metric in metrics}
        self._live: dict[AttemptId, LiveAttempt] = {}
        self._reported: OrderedDict[AttemptId, LiveAttempt] = OrderedDict()
        self._gpu_time = GpuTime()
        self._histories: dict[int, TrialRecord] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveAttempt]:
        return iter(list(self._live.values()))

    def get(self, attempt: AttemptId) -> LiveAttempt | None:
        """The live attempt of that id, or None when it is over or was never ours."""
        return self._live.get(attempt)

    def gpu_s(self, now_s: float) -> float:
        """GPU seconds that attempts have held, those that are over included; of one that nothing was heard of since it
        was adopted, what it has held at least."""
        return self._gpu_time.at(now_s)

    def history(self, number: int) -> TrialRecord:
        """The trial's history; an empty one for a new trial."""
        return self._histories.setdefault(number, TrialRecord())

    def new_curve(self) -> MetricTracker:
        """A curve without reports."""
        return MetricTracker(self._goals)

    def open(
        self, trial_id: int, number: int, params: Mapping[str, ParamValue], *, gpus: float, now_s: float
    ) -> LiveAttempt:
        """Begin the trial's next attempt."""
        history = self.history(number)
        history.attempts += 1
        curve = self.new_curve() if history.curve is None else history.curve.copy()
        live = LiveAttempt(AttemptId(trial_id, history.attempts), number, params, curve, gpus, opened_s=now_s)
        self._live[live.id] = live
        return live

    def adopt(
        self, trial_id: int, attempt: StoredAttempt, number: int, params: Mapping[str, ParamValue], *, now_s: float
    ) -> LiveAttempt:
        """Go on with an attempt that an earlier coordinator opened, as far as its events are recorded."""
        live = LiveAttempt(
            AttemptId(trial_id, attempt.number),
            number,
            params,
            self.new_curve(),
            attempt.gpus,
            opened_s=now_s,
            started_s=None if attempt.running_s is None else now_s - attempt.running_s,
            heard_s=now_s,
            cursor=attempt.cursor,
            last_word_s=now_s - (attempt.silent_s or 0.0),
        )
        if live.started_s is not None and live.last_word_s is not None:
            self._gpu_time.begin(live.gpus, live.started_s)
            self._gpu_time.end(live.gpus, live.last_word_s)
        self._live[live.id] = live
        return live

    def start(self, live: LiveAttempt, now_s: float) -> None:
        """The attempt has its resources."""
        live.started_s = live.heard_s = now_s
        self._gpu_time.begin(live.gpus, now_s)

    def speak(self, live: LiveAttempt) -> None:
        """The attempt gave a sign of life: if it was adopted, it has run all the time."""
        if live.last_word_s is not None and live.started_s is not None:
            self._gpu_time.begin(live.gpus, live.last_word_s)
        live.last_word_s = None

    def report(self, live: LiveAttempt, step: int) -> None:
        """The attempt reported something that the pruner has to look at."""
        live.unjudged.append(step)
        self._reported[live.id] = live

    def take_reported(self) -> LiveAttempt | None:
        """Who did so first; None when everybody was taken."""
        return self._reported.popitem(last=False)[1] if self._reported else None

    def close(self, live: LiveAttempt, now_s: float) -> None:
        """The attempt is over, the trial is not."""
        del self._live[live.id]
        self._reported.pop(live.id, None)
        if live.started_s is not None and live.last_word_s is None:
            self._gpu_time.end(live.gpus, now_s)

    def forget(self, number: int) -> None:
        """The trial is over."""
        self._histories.pop(number, None)
