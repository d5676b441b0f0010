"""What to do next, decided purely: failure -> retry or give up; budget -> ask, drain or finish; each with a reason.

Plain values in, plain values out: no clock, no database, no executor. The coordinator acts on what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunesvc.spec import Budget, Limits, Metric, Retries
from tunesvc.spec.model import StopWhen
from tunesvc.trial import is_better


class Failure(StrEnum):
    """What ended an attempt that did not end well."""

    ERROR = "error"
    """The objective raised, or its program ended with an error."""
    BAD_REPORT = "bad_report"
    """It reported or returned something that is no number."""
    NO_RESULT = "no_result"
    """It ended without any value for a metric."""
    WRONG_METRIC = "wrong_metric"
    """It ended with values, but under other names than the study's: so would every trial."""
    NAN = "nan"
    """Its result is not a number."""
    GPU_OOM = "gpu_oom"
    """It ran out of GPU memory."""
    HOST_OOM = "host_oom"
    """It ran out of main memory, which others on its node may have caused."""
    ENTRYPOINT = "entrypoint"
    """The objective could not be found or imported: no trial can run."""
    LOST = "lost"
    """Its worker died."""
    STALLED = "stalled"
    """Its worker gave no sign of life for `limits.stall`."""
    NODE = "node"
    """Its node went away."""
    PREEMPTED = "preempted"
    """Its node was taken back."""
    TIMEOUT = "timeout"
    """It ran longer than `limits.wall`."""
    SILENCE = "silence"
    """It did not report for `limits.silence`."""

    @property
    def is_of_the_machine(self) -> bool:
        """Whether it says nothing about the trial's parameters."""
        return self in (
            Failure.LOST,
            Failure.STALLED,
            Failure.NODE,
            Failure.PREEMPTED,
            Failure.HOST_OOM,
        )

    @property
    def is_of_every_trial(self) -> bool:
        """Whether every other trial of the study would fail likewise."""
        return self in (Failure.ENTRYPOINT, Failure.WRONG_METRIC)


class StopCause(StrEnum):
    """Why an attempt was asked to stop."""

    PRUNE = "prune"
    PAUSE = "pause"
    BUDGET = "budget"
    TARGET = "target"
    COMMAND = "command"
    """Somebody stopped the study."""
    REQUEST = "request"
    """Somebody stopped this trial alone."""
    WALL = "wall"
    SILENCE = "silence"
    SHUTDOWN = "shutdown"

    @property
    def failure(self) -> Failure | None:
        """The failure that a stop for this cause amounts to, if it is one."""
        return {
            StopCause.WALL: Failure.TIMEOUT,
            StopCause.SILENCE: Failure.SILENCE,
        }.get(self)


# --- after a failure --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the trial again, in a new attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The trial has failed."""

    reason: str


def after_failure(
    failure: Failure,
    earlier: Mapping[Failure, int],
    retries: Retries,
) -> Retry | GiveUp:
    """Whether a trial whose attempt failed is run again.

    Args:
        failure: what ended the attempt.
        earlier: failures of the trial's attempts before this one.
        retries: the study's limits, one for each failure that another attempt may escape.
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


def is_broken(failure: Failure, unexplained: int, results: int, limits: Limits) -> bool:
    """Whether a failed trial shows that no trial could do better: going on would be waste.

    Args:
        failure: of the trial that failed just now.
        unexplained: trials that failed otherwise than by their parameters, this one included.
        results: trials that came to a result.
        limits: the study's.
    """
    return results == 0 and (failure.is_of_every_trial or unexplained >= limits.failures)


# --- the budget -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What a study has spent and has under way."""

    trials: int
    """Trials that exist, in whatever state."""
    running: int
    """Trials that run or wait to be run again; paused ones do neither."""
    wall_s: float
    gpu_hours: float


@dataclass(frozen=True, slots=True)
class AskForTrials:
    """There is budget for up to this many more trials."""

    trials: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask for nothing more, let what runs come to its end."""

    reason: str
    promotes: bool = False
    """Whether paused trials may still be promoted."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Ask for nothing more, and stop what runs."""

    cause: StopCause
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing runs and nothing more may be asked: the study is over."""

    reason: str
    promotes: bool = False
    """Whether it goes on if a paused trial can be promoted."""


def next_move(
    budget: Budget,
    usage: Usage,
    parallelism: int,
    *,
    exhausted: str = "",
    expected: ImprovementForecast | None = None,
) -> AskForTrials | Drain | Halt | Finish:
    """What the budget allows now. Time and GPU budgets end what runs; a spent budget of trials lets it finish, and so
    does a forecast that `stop_when` finds too low.

    Args:
        exhausted: why there is nothing left to propose, as when a grid is complete; empty while there is.
        expected: the improvement to come.
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
    return None


FORECAST_FROM = 20
"""So many trials have to be over before a forecast is worth showing."""


@dataclass(frozen=True, slots=True)
class ImprovementForecast:
    """The improvement to expect."""

    improvement: float
    """Of the best value, for each `per`; never negative."""
    per: str
    below: float | None
    """The study ends when less than this is expected."""

    @property
    def is_too_low(self) -> bool:
        """Whether it is not worth going on."""
        return self.below is not None and self.improvement < self.below

    @property
    def text(self) -> str:
        """In words."""
        unit = self.per.replace("gpu_hour", "GPU hour")
        limit = "" if self.below is None else f"; the study ends below {self.below:g}"
        if self.is_too_low:
            limit = f", less than {self.below:g}"
        return f"expected improvement {self.improvement:.3g} per {unit}{limit}"


def forecast(
    stop: StopWhen | None,
    incumbents: Sequence[float | None],
    usage: Usage,
) -> ImprovementForecast | None:
    """How much better the best value is expected to become, or None while it is too early to tell.

    Records of a random sequence come ever more rarely: as many are set between trial n and 2n as between n/2 and n,
    and from a distribution with an exponential tail each of them gains the same (N. Glick, "Breaking records and
    breaking boards", American Mathematical Monthly 85, 1978). So what the second half of the trials has gained is
    what as many trials again as there are now will gain. Near the optimum that is too much rather than too little.

    Args:
        stop: what ends the study; without it, the forecast is per trial.
        incumbents: the best value after each finished trial, None before the first result.
        usage: what was spent so far, for forecasts per hour.
    """
    done = len(incumbents)
    if done < (FORECAST_FROM if stop is None else stop.after):
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
    }[per]
    if spent <= 0:
        return None
    return ImprovementForecast(
        per_trial * done / spent,
        per,
        None if stop is None else stop.improvement_below,
    )


def incumbents(values: Iterable[float | None], goal: str) -> list[float | None]:
    """The best value after each finished trial.

    Args:
        values: of finished trials in the order in which they ended; None for one that may not be the best.
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
    """Share of the tightest limit that is spent, 0 ... 1. Trials that run do not count as spent."""
    shares = [0.0]
    if budget.trials is not None:
        shares.append((usage.trials - usage.running) / budget.trials)
    if budget.wall is not None:
        shares.append(usage.wall_s / budget.wall)
    if budget.gpu_hours is not None:
        shares.append(usage.gpu_hours / budget.gpu_hours)
    return min(1.0, max(shares))


LEFT_FROM = 0.05
"""Share of the budget from which on the time that is left can be told."""


def time_left_s(fraction: float, spent_s: float) -> float | None:
    """How long until the budget is spent, if it goes on as it went; None while it is too early to tell."""
    return spent_s / fraction - spent_s if fraction >= LEFT_FROM else None


def reached_target(metrics: tuple[Metric, ...], values: list[float]) -> bool:
    """Whether a trial reaches the target of every metric that has one."""
    targets = [(m, m.target, value) for m, value in zip(metrics, values, strict=True) if m.target is not None]
    return bool(targets) and all(
        value == target or is_better(value, target, metric.goal) for metric, target, value in targets
    )


# --- attempts that do not end by themselves ---------------------------------------------------------


def overdue(
    limits: Limits,
    running_s: float,
    silent_s: float,
) -> tuple[StopCause, str] | None:
    """Which limit an attempt has exceeded, and in what words."""
    if limits.wall is not None and running_s > limits.wall:
        return StopCause.WALL, f"ran longer than limits.wall ({limits.wall:g} s)"
    if limits.silence is not None and silent_s > limits.silence:
        return StopCause.SILENCE, f"no report for {limits.silence:g} s (limits.silence)"
    return None
