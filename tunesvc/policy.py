"""Decisions of a study, each with a reason: retry or give up; ask, drain or finish.

Pure: no clock, no database, no executor. The coordinator acts on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunesvc.spec import Budget, Limits, Metric, Retries
from tunesvc.spec.sections.budget import StopWhen
from tunesvc.trial import is_better
from tunesvc.util import formatting


class Failure(StrEnum):
    """Cause of a failed attempt."""

    ERROR = "error"
    """The objective raised, or its program ended with an error."""
    BAD_REPORT = "bad_report"
    """It reported or returned something that is not a number."""
    NO_RESULT = "no_result"
    """It ended without any value for a metric."""
    WRONG_METRIC = "wrong_metric"
    """It ended with values under other names than the study's, as every trial would."""
    NAN = "nan"
    """Its result is not a number."""
    GPU_OOM = "gpu_oom"
    """It ran out of GPU memory."""
    HOST_OOM = "host_oom"
    """It ran out of main memory, perhaps because of others on its node."""
    ENTRYPOINT = "entrypoint"
    """The objective could not be found or imported: no trial can run."""
    LOST = "lost"
    """Its worker died."""
    STALLED = "stalled"
    """Its worker sent no heartbeat for `limits.stall`."""
    NODE = "node"
    """Its node was lost."""
    PREEMPTED = "preempted"
    """Its node was preempted."""
    TIMEOUT = "timeout"
    """It ran longer than `limits.wall`."""
    SILENCE = "silence"
    """It did not report for `limits.silence`."""

    @property
    def is_infrastructure(self) -> bool:
        """True if the trial's parameters cannot be the cause."""
        return self in (
            Failure.LOST,
            Failure.STALLED,
            Failure.NODE,
            Failure.PREEMPTED,
            Failure.HOST_OOM,
        )

    @property
    def affects_every_trial(self) -> bool:
        """True if every other trial of the study would fail alike."""
        return self in (Failure.ENTRYPOINT, Failure.WRONG_METRIC)


class StopCause(StrEnum):
    """Cause of a requested stop."""

    PRUNE = "prune"
    PAUSE = "pause"
    BUDGET = "budget"
    TARGET = "target"
    STUDY_STOPPED = "command"
    """The study was stopped by a request, or because every trial failed."""
    TRIAL_STOPPED = "request"
    """This trial alone was stopped by a request."""
    WALL = "wall"
    SILENCE = "silence"
    SHUTDOWN = "shutdown"
    PREEMPT = "preempt"
    """The trial makes room for another study's, and continues later."""

    @property
    def continues_trial(self) -> bool:
        """True if the trial continues later in another attempt, from its last checkpoint."""
        return self in (StopCause.SHUTDOWN, StopCause.PREEMPT)

    @property
    def failure(self) -> Failure | None:
        """Failure of an attempt stopped for this cause, if it counts as one."""
        return {
            StopCause.WALL: Failure.TIMEOUT,
            StopCause.SILENCE: Failure.SILENCE,
        }.get(self)


# --- after a failure ---


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the trial again, in a new attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Give the trial up as failed."""

    reason: str


def after_failure(
    failure: Failure,
    earlier: Mapping[Failure, int],
    retries: Retries,
) -> Retry | GiveUp:
    """Decide whether a trial runs again after a failed attempt.

    Args:
        failure: of the attempt.
        earlier: failures of the trial's attempts before this one.
        retries: the study's limits, one for each failure that another attempt may avoid.
    """
    limit: int | None = getattr(retries, failure, None)
    if limit is None:
        return GiveUp(f"not retried: {failure} would happen again")
    used = earlier.get(failure, 0)
    if used < limit:
        return Retry(f"retry {used + 1} of {limit} after {failure} (retries.{failure})")
    if limit == 0:
        return GiveUp(f"not retried: retries.{failure} is 0")
    return GiveUp(f"not retried: retries.{failure} ({limit}) is used up")


def is_broken(
    failure: Failure,
    unexplained: int,
    results: int,
    limits: Limits,
) -> bool:
    """Return True if a failed trial shows that no trial can succeed, so that the study should end.

    Args:
        failure: of the trial that just failed.
        unexplained: trials that failed for other reasons than their parameters, this one included.
        results: trials with a result.
        limits: the study's.
    """
    return results == 0 and (failure.affects_every_trial or unexplained >= limits.failures)


# --- the budget ---


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources that a study has used, and its trials."""

    trials: int
    """Trials in any state."""
    running: int
    """Trials that run or wait for a retry; not paused ones."""
    wall_s: float
    gpu_hours: float
    cost: float = 0.0
    """Cost at the study's prices; 0 without prices."""
    currency: str = ""


@dataclass(frozen=True, slots=True)
class AskForTrials:
    """There is budget for at most this many more trials."""

    trials: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask for nothing more, and let running trials finish."""

    reason: str
    promotes: bool = False
    """True if paused trials may still be promoted."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Ask for nothing more, and stop running trials."""

    cause: StopCause
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing runs and nothing more may be asked for: the study has finished."""

    reason: str
    promotes: bool = False
    """True if the study continues when a paused trial can be promoted."""


def next_move(
    budget: Budget,
    usage: Usage,
    parallelism: int,
    *,
    exhausted: str = "",
    expected: ImprovementForecast | None = None,
) -> AskForTrials | Drain | Halt | Finish:
    """Return the next move that the budget allows.

    Spent budgets of time, GPU hours and cost stop running trials. A spent budget of trials lets
    them finish, and so does a forecast below `stop_when`.

    Args:
        exhausted: reason why nothing is left to propose, such as a complete grid; else empty.
        expected: forecast of the improvement.
    """
    spent = _spent(budget, usage)
    if spent is not None:
        return Finish(spent) if usage.running == 0 else Halt(StopCause.BUDGET, spent)
    if expected is not None and expected.is_too_low:
        reason = f"{expected.text} (budget.stop_when)"
        return Finish(reason) if usage.running == 0 else Drain(reason)
    left = parallelism if budget.trials is None else budget.trials - usage.trials
    if left <= 0 or exhausted:
        reason = exhausted if left > 0 else f"all {budget.trials} trials are done"
        return Finish(reason, promotes=True) if usage.running == 0 else Drain(reason, promotes=True)
    return AskForTrials(max(0, min(left, parallelism - usage.running)))


def _spent(budget: Budget, usage: Usage) -> str | None:
    if budget.wall is not None and usage.wall_s >= budget.wall:
        return f"the budget of {budget.wall:g} s wall time is spent"
    if budget.gpu_hours is not None and usage.gpu_hours >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} GPU hours is spent"
    if budget.cost is not None and usage.cost >= budget.cost:
        return f"the budget of {formatting.money(budget.cost, usage.currency)} is spent"
    return None


IMPROVEMENT_FORECAST_FROM = 20
"""Fewest finished trials for a forecast that `stop_when` compares with its limit.

Where an interval counts, `search.analysis.gain_forecast` forecasts.
"""


@dataclass(frozen=True, slots=True)
class ImprovementForecast:
    """Forecast of the improvement."""

    improvement: float
    """Improvement of the best value, for each `per`; never negative."""
    per: str
    below: float | None
    """The study ends when less than this is expected."""
    currency: str = ""
    """Unit of the cost, if `per` is `cost`."""

    @property
    def is_too_low(self) -> bool:
        """True if continuing is not worth it."""
        return self.below is not None and self.improvement < self.below

    @property
    def unit(self) -> str:
        """`per` as shown."""
        shown = {"gpu_hour": "GPU hour", "cost": self.currency or "unit of cost"}
        return shown.get(self.per, self.per)

    @property
    def text(self) -> str:
        """Format the forecast."""
        limit = "" if self.below is None else f"; the study ends below {self.below:g}"
        if self.is_too_low:
            limit = f", less than {self.below:g}"
        return f"expected improvement {self.improvement:.3g} per {self.unit}{limit}"


def forecast(
    stop: StopWhen | None,
    incumbents: Sequence[float | None],
    usage: Usage,
) -> ImprovementForecast | None:
    """Forecast the improvement of the best value; None while it is too early.

    Records of a random sequence become ever rarer: as many are set between trial n and 2n as
    between n/2 and n, and from a distribution with an exponential tail each gains the same (N.
    Glick, "Breaking records and breaking boards", American Mathematical Monthly 85, 1978). So the
    next n trials gain as much as the second half of the first n. Near the optimum that is rather
    too much.

    Args:
        stop: condition that ends the study; without it, the forecast is per trial.
        incumbents: the best value after each finished trial, None before the first result.
        usage: resources used so far, for forecasts per hour or cost.
    """
    done = len(incumbents)
    if done < (IMPROVEMENT_FORECAST_FROM if stop is None else stop.after):
        return None
    before, now = incumbents[done // 2 - 1], incumbents[-1]
    if before is None or now is None:
        return None
    per_trial = abs(now - before) / done
    per = "trial" if stop is None else stop.per
    spent = {
        "trial": float(done),
        "hour": usage.wall_s / 3600,
        "gpu_hour": usage.gpu_hours,
        "cost": usage.cost,
    }[per]
    if spent <= 0:
        return None
    return ImprovementForecast(
        per_trial * done / spent,
        per,
        None if stop is None else stop.improvement_below,
        usage.currency,
    )


def incumbents(values: Iterable[float | None], goal: str) -> list[float | None]:
    """Return the best value after each finished trial.

    Args:
        values: of finished trials in the order in which they ended; None for trials that cannot
            be the best.
        goal: `minimize` or `maximize`.
    """
    best: float | None = None
    found: list[float | None] = []
    for value in values:
        if value is not None and (best is None or is_better(value, best, goal)):
            best = value
        found.append(best)
    return found


def fraction_spent(budget: Budget, usage: Usage) -> float:
    """Return the spent share of the tightest limit, 0 to 1. Running trials do not count."""
    shares = [0.0]
    if budget.trials is not None:
        shares.append((usage.trials - usage.running) / budget.trials)
    if budget.wall is not None:
        shares.append(usage.wall_s / budget.wall)
    if budget.gpu_hours is not None:
        shares.append(usage.gpu_hours / budget.gpu_hours)
    if budget.cost is not None:
        shares.append(usage.cost / budget.cost)
    return min(1.0, max(shares))


LEFT_FROM = 0.05
"""Share of the budget from which on the remaining time is estimated."""


def time_left_s(fraction: float, spent_s: float) -> float | None:
    """Estimate the time until the budget is spent; None while it is too early."""
    return spent_s / fraction - spent_s if fraction >= LEFT_FROM else None


def reached_target(metrics: tuple[Metric, ...], values: list[float]) -> bool:
    """Return True if a trial reaches the target of every metric that has one."""
    pairs = zip(metrics, values, strict=True)
    reached = [_reaches(metric, value) for metric, value in pairs if metric.target is not None]
    return bool(reached) and all(reached)


def _reaches(metric: Metric, value: float) -> bool:
    if metric.target is None:
        return False
    return value == metric.target or is_better(value, metric.target, metric.goal)


# --- attempts that do not end by themselves ---


def overdue(
    limits: Limits,
    running_s: float,
    silent_s: float,
) -> tuple[StopCause, str] | None:
    """Return the limit that an attempt has exceeded, with a text; None if there is none."""
    if limits.wall is not None and running_s > limits.wall:
        return (
            StopCause.WALL,
            f"ran longer than limits.wall ({limits.wall:g} s)",
        )
    if limits.silence is not None and silent_s > limits.silence:
        return (
            StopCause.SILENCE,
            f"no report for {limits.silence:g} s (limits.silence)",
        )
    return None
