"""What an attempt's end means for its trial: decided purely, from what it said last and why it was asked to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import TrialState

from tunesvc.coordinator.live_attempts import MetricTracker
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.executor import Failed, Finished, Lost, Outcome
from tunesvc.policy import Failure, StopCause
from tunesvc.spec import Constraint, StudySpec
from tunesvc.spec.diagnostics import suggest


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The end of an attempt."""

    attempt_state: AttemptState
    trial_state: TrialState | None
    """COMPLETE, PRUNED, or FAIL for one that was stopped before it said anything; None when the trial stays open, or
    when a `failure` leaves that to policy."""
    values: Sequence[float] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics that are no objectives."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """By metric and bound, feasible where <= 0."""
    failure: Failure | None = None
    message: str | None = None
    traceback: str | None = None


def conclude(
    spec: StudySpec, curve: MetricTracker, outcome: Outcome, stop_cause: StopCause | None, stop_reason: str = ""
) -> AttemptResult:
    """What the attempt's last event means.

    An objective that came to its own end still counts after a request to stop: the work is done. Otherwise a
    requested stop decides, whether the attempt yielded, raised while it cleaned up, or had to be killed.
    """
    if isinstance(outcome, Finished):
        return _finished(spec, curve, outcome)
    detail = _detail(outcome)
    if stop_cause is StopCause.SHUTDOWN or (isinstance(outcome, Lost) and outcome.kind == "gone" and not stop_cause):
        return AttemptResult(AttemptState.INTERRUPTED, None, message=detail)
    if stop_cause is not None and stop_cause.failure is not None:
        return _failed(stop_cause.failure, stop_reason, outcome)
    if stop_cause is StopCause.PAUSE:
        return AttemptResult(AttemptState.PAUSED, None, message=detail)
    if stop_cause in _STOPS and not curve.last:  # not pruned: samplers would take that for a poor result
        return AttemptResult(
            AttemptState.FAILED, TrialState.FAIL, message=f"stopped before its first report: {stop_reason}"
        )
    if stop_cause is not None:
        return _pruned(spec, curve, detail)
    if isinstance(outcome, Failed):
        return _failed(Failure(outcome.kind), outcome.message, outcome)
    if isinstance(outcome, Lost):
        return _failed(Failure(outcome.kind), outcome.message, outcome)
    return _pruned(spec, curve, "the objective pruned itself")


_NAMES_MAX = 8
"""How many names of metrics a message lists."""
_STOPS = frozenset({StopCause.REQUEST, StopCause.COMMAND, StopCause.BUDGET, StopCause.TARGET})
"""Reasons to stop a trial that say nothing about its parameters."""


def _finished(spec: StudySpec, curve: MetricTracker, outcome: Finished) -> AttemptResult:
    values = [outcome.metrics.get(metric.name, curve.taken(metric)) for metric in spec.metrics]
    known = [value for value in values if value is not None]
    final = {name: value for name, (_, value) in curve.last.items()} | dict(outcome.metrics)
    if missing := [name for name in spec.metric_names if name not in final]:
        return _failed(*_without(missing, [name for name in final if name not in spec.metric_names]), outcome)
    objectives = {metric.name for metric in spec.metrics}
    others = {name: value for name, value in final.items() if name not in objectives}
    if not all(math.isfinite(value) for value in known):
        shown = ", ".join(f"{m.name} = {value:g}" for m, value in zip(spec.metrics, known, strict=True))
        return AttemptResult(
            AttemptState.FAILED,
            None,
            metrics=others,
            failure=Failure.NAN,
            message=f"the result is not finite: {shown}",
        )
    constraints = {name: value for c in spec.constraints for name, value in _excess(c, final[c.metric])}
    return AttemptResult(AttemptState.FINISHED, TrialState.COMPLETE, known, others, constraints)


def _without(missing: Sequence[str], others: Sequence[str]) -> tuple[Failure, str]:
    """Say which metrics have no value, and under which other names there are values."""
    names = ", ".join(missing)
    message = f"ended without a value for {names}"
    if not others:
        return Failure.NO_RESULT, f"{message}: return it, or trial.report(step, {names}=...)"
    shown = ", ".join([*others[:_NAMES_MAX], *(["..."] if len(others) > _NAMES_MAX else [])])
    hint = next(filter(None, (suggest(name, missing) for name in others)), ".")
    return Failure.WRONG_METRIC, f"{message}, but with one for {shown}{hint} The study and the objective need one name"


def _pruned(spec: StudySpec, curve: MetricTracker, message: str | None) -> AttemptResult:
    last = curve.last_of(spec.metrics[0].name) if len(spec.metrics) == 1 else None
    values = [last] if last is not None and math.isfinite(last) else None
    return AttemptResult(AttemptState.PRUNED, TrialState.PRUNED, values, message=message)


def _failed(failure: Failure, message: str, outcome: Outcome) -> AttemptResult:
    state = AttemptState.LOST if isinstance(outcome, Lost) and failure.is_of_the_machine else AttemptState.FAILED
    traceback = outcome.traceback if isinstance(outcome, Failed) else None
    return AttemptResult(state, None, failure=failure, message=message, traceback=traceback or None)


def _detail(outcome: Outcome) -> str | None:
    return outcome.message if isinstance(outcome, (Failed, Lost)) else None


def _excess(constraint: Constraint, value: float) -> Iterator[tuple[str, float]]:
    """How far a value is outside, per bound; NaN is outside by infinity."""
    if constraint.min is not None:
        yield f"{constraint.metric}.min", math.inf if math.isnan(value) else constraint.min - value
    if constraint.max is not None:
        yield f"{constraint.metric}.max", math.inf if math.isnan(value) else value - constraint.max
