"""What to do next, decided purely: failure -> retry or give up; budget -> ask, drain or finish; each with a reason.

Plain values in, plain values out: no clock, no database, no executor. The coordinator acts on what is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tunesvc.objective import is_better
from tunesvc.spec import Budget, Limits, Metric, Retries


class Failure(StrEnum):
    """What ended an attempt that did not end well."""

    ERROR = "error"
    """The objective raised, or its program ended with an error."""
    BAD_REPORT = "bad_report"
    """It reported or returned something that is no number."""
    NO_RESULT = "no_result"
    """It ended without any value for a metric."""
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
        return self in (Failure.LOST, Failure.STALLED, Failure.NODE, Failure.PREEMPTED, Failure.HOST_OOM)


class StopCause(StrEnum):
    """Why an attempt was asked to stop."""

    PRUNE = "prune"
    BUDGET = "budget"
    TARGET = "target"
    COMMAND = "command"
    WALL = "wall"
    SILENCE = "silence"
    SHUTDOWN = "shutdown"

    @property
    def failure(self) -> Failure | None:
        """The failure that a stop for this cause amounts to, if it is one."""
        return {StopCause.WALL: Failure.TIMEOUT, StopCause.SILENCE: Failure.SILENCE}.get(self)


# --- after a failure --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the trial again, in a new attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The trial has failed."""

    reason: str


def after_failure(failure: Failure, earlier: Mapping[Failure, int], retries: Retries) -> Retry | GiveUp:
    """Whether a trial whose attempt failed is run again.

    Args:
        failure: what ended the attempt.
        earlier: failures of the trial's attempts before this one.
        retries: the study's limits, one for each failure that another attempt may escape.
    """
    limit: int | None = getattr(retries, failure, None)
    if limit is None:
        return GiveUp(f"{failure}: would happen again")
    used = earlier.get(failure, 0)
    if used < limit:
        return Retry(f"{failure}: retry {used + 1} of {limit} (retries.{failure})")
    return GiveUp(f"{failure}: no retry left (retries.{failure}: {limit})")


FAILURES_AT_FIRST = 8
"""So many trials that failed, before any other came to a result, end the study: the objective is broken."""


def is_broken(failure: Failure, failed: int, others: int) -> bool:
    """Whether a failed trial shows that no trial could do better: going on would be waste.

    Args:
        failure: of the trial that failed just now.
        failed: trials that have failed, this one included.
        others: trials that came to a result.
    """
    return others == 0 and (failure is Failure.ENTRYPOINT or failed >= FAILURES_AT_FIRST)


# --- the budget -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What a study has spent and has under way."""

    trials: int
    """Trials that exist, in whatever state."""
    running: int
    """Trials that are not over."""
    wall_s: float
    gpu_hours: float


@dataclass(frozen=True, slots=True)
class Ask:
    """There is budget for up to this many more trials."""

    trials: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask for nothing more, let what runs come to its end."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Ask for nothing more, and stop what runs."""

    cause: StopCause
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing runs and nothing more may be asked: the study is over."""

    reason: str


def next_move(
    budget: Budget, usage: Usage, parallelism: int, *, exhausted: bool = False
) -> Ask | Drain | Halt | Finish:
    """What the budget allows now. Time and GPU budgets end what runs; a spent budget of trials lets it finish.

    Args:
        exhausted: the sampler has nothing left to propose, as when a grid is complete.
    """
    spent = _spent(budget, usage)
    if spent is not None:
        return Finish(spent) if usage.running == 0 else Halt(StopCause.BUDGET, spent)
    left = parallelism if budget.trials is None else budget.trials - usage.trials
    if left <= 0 or exhausted:
        reason = "the sampler has nothing left to propose" if left > 0 else f"all {budget.trials} trials are done"
        return Finish(reason) if usage.running == 0 else Drain(reason)
    return Ask(max(0, min(left, parallelism - usage.running)))


def _spent(budget: Budget, usage: Usage) -> str | None:
    if budget.wall is not None and usage.wall_s >= budget.wall:
        return f"the budget of {budget.wall:g} s wall time is spent"
    if budget.gpu_hours is not None and usage.gpu_hours >= budget.gpu_hours:
        return f"the budget of {budget.gpu_hours:g} GPU hours is spent"
    return None


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


def reached_target(metrics: tuple[Metric, ...], values: list[float]) -> bool:
    """Whether a trial reaches the target of every metric that has one."""
    targets = [(m, m.target, value) for m, value in zip(metrics, values, strict=True) if m.target is not None]
    return bool(targets) and all(
        value == target or is_better(value, target, metric.goal) for metric, target, value in targets
    )


# --- attempts that do not end by themselves ---------------------------------------------------------


def overdue(limits: Limits, running_s: float, silent_s: float) -> tuple[StopCause, str] | None:
    """Which limit an attempt has exceeded, and in what words."""
    if limits.wall is not None and running_s > limits.wall:
        return StopCause.WALL, f"ran longer than limits.wall ({limits.wall:g} s)"
    if limits.silence is not None and silent_s > limits.silence:
        return StopCause.SILENCE, f"no report for {limits.silence:g} s (limits.silence)"
    return None
