"""The result of an attempt for its trial, decided purely from its last event and its stop cause."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import TrialState

from tunesvc.coordinator.attempt_state.live_attempts import MetricTracker
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.executor import Failed, Finished, Lost, Outcome
from tunesvc.policy import Failure, StopCause
from tunesvc.search.analysis.samples import standard_error
from tunesvc.spec import Constraint, StudySpec
from tunesvc.util.suggestions import suggest


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of an attempt."""

    attempt_state: AttemptState
    trial_state: TrialState | None
    """COMPLETE, PRUNED, or FAIL for a trial that was stopped before its first report; None when
    the trial stays open, or when policy decides after a `failure`."""
    values: Sequence[float] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics that are not objectives."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Excess by metric and bound; feasible where <= 0."""
    failure: Failure | None = None
    message: str | None = None
    traceback: str | None = None


def conclude(
    spec: StudySpec,
    curve: MetricTracker,
    outcome: Outcome,
    stop_cause: StopCause | None,
    stop_reason: str = "",
    forecast: float | None = None,
) -> Conclusion:
    """Return the result of an attempt that ended with `outcome`.

    `forecast` is the value of a trial that was stopped between folds: it can be compared with other
    trials' values, as the mean of its folds so far cannot.

    An objective that returned still counts after a request to stop: the work is done. Otherwise the
    stop cause decides, no matter whether the attempt stopped early, raised, or had to be killed.
    """
    if isinstance(outcome, Finished):
        return _finished(spec, curve, outcome)
    never_started = isinstance(outcome, Lost) and outcome.kind == "gone"
    is_resumed = stop_cause is not None and stop_cause.continues_trial
    if is_resumed or (never_started and stop_cause is None):
        return Conclusion(AttemptState.INTERRUPTED, None, message=_message(outcome))
    if stop_cause is not None:
        stopped = _stopped(spec, curve, outcome, stop_cause, stop_reason)
        if forecast is None or stopped.trial_state is not TrialState.PRUNED:
            return stopped
        return replace(stopped, values=[forecast] if math.isfinite(forecast) else None)
    if isinstance(outcome, (Failed, Lost)):
        return _failed(Failure(outcome.kind), outcome.message, outcome)
    return _pruned(spec, curve, "the objective pruned itself")


_ONE_NAME = "The study and the objective need one name"
_NAMES_MAX = 8
"""Most metric names in a message."""
_NEUTRAL_STOPS = frozenset(
    {StopCause.TRIAL_STOPPED, StopCause.STUDY_STOPPED, StopCause.BUDGET, StopCause.TARGET},
)
"""Causes of a stop that do not depend on the trial's parameters."""


def _stopped(
    spec: StudySpec,
    curve: MetricTracker,
    outcome: Outcome,
    cause: StopCause,
    reason: str,
) -> Conclusion:
    if cause.failure is not None:
        return _failed(cause.failure, reason, outcome)
    if cause is StopCause.PAUSE:
        return Conclusion(AttemptState.PAUSED, None, message=_message(outcome))
    if cause in _NEUTRAL_STOPS and not curve.last:
        # Not pruned: samplers would learn a poor result from it.
        message = f"stopped before its first report: {reason}"
        return Conclusion(AttemptState.FAILED, TrialState.FAIL, message=message)
    return _pruned(spec, curve, _message(outcome))


def _finished(spec: StudySpec, curve: MetricTracker, outcome: Finished) -> Conclusion:
    final = {name: value for name, (_, value) in curve.last.items()} | dict(outcome.metrics)
    if spec.is_stepwise:
        final = {name: mean(curve.samples(name)) for name in curve.last}
    missing = [name for name in spec.metric_names if name not in final]
    if missing:
        others = [name for name in final if name not in spec.metric_names]
        failure, message = _missing_metrics(missing, others)
        return _failed(failure, message, outcome)
    objectives = {metric.name for metric in spec.metrics}
    metrics = {name: value for name, value in final.items() if name not in objectives}
    if spec.is_stepwise:
        values = [final[metric.name] for metric in spec.metrics]
        metrics = {**_standard_errors(spec, curve), **metrics}
    else:
        values = _objective_values(spec, curve, outcome)
    if not all(map(math.isfinite, values)):
        return _not_finite(spec, values, metrics)
    constraints: dict[str, float] = {}
    for constraint in spec.constraints:
        constraints.update(_excess(constraint, final[constraint.metric]))
    return Conclusion(
        AttemptState.FINISHED,
        TrialState.COMPLETE,
        values,
        metrics,
        constraints,
    )


def mean(samples: Sequence[float]) -> float:
    """Return the mean; NaN if one is not finite, as a fold of both infinities has none."""
    return math.fsum(samples) / len(samples) if all(map(math.isfinite, samples)) else math.nan


def _standard_errors(spec: StudySpec, curve: MetricTracker) -> dict[str, float]:
    """Return the standard error of each objective's mean over folds or repeats, by name."""
    errors = {}
    for metric in spec.metrics:
        error = standard_error(curve.samples(metric.name))
        if error is not None:
            errors[spec.standard_error_of(metric.name)] = error
    return errors


def _objective_values(
    spec: StudySpec,
    curve: MetricTracker,
    outcome: Finished,
) -> list[float]:
    """Return the objectives' values: the returned ones, else those of the curve."""
    values = []
    for metric in spec.metrics:
        value = outcome.metrics.get(metric.name, curve.result(metric))
        if value is not None:
            values.append(value)
    return values


def _not_finite(
    spec: StudySpec,
    values: Sequence[float],
    metrics: Mapping[str, float],
) -> Conclusion:
    pairs = zip(spec.metrics, values, strict=True)
    shown = ", ".join(f"{metric.name} = {value:g}" for metric, value in pairs)
    return Conclusion(
        AttemptState.FAILED,
        None,
        metrics=metrics,
        failure=Failure.NAN,
        message=f"the result is not finite: {shown}",
    )


def _missing_metrics(missing: Sequence[str], others: Sequence[str]) -> tuple[Failure, str]:
    """Return the failure of a result without some metrics, and a message that names both."""
    names = ", ".join(missing)
    message = f"ended without a value for {names}"
    if not others:
        return Failure.NO_RESULT, f"{message}: return it, or trial.report(step, {names}=...)"
    shown = list(others[:_NAMES_MAX])
    if len(others) > _NAMES_MAX:
        shown.append("...")
    hints = (suggest(name, missing) for name in others)
    hint = next(filter(None, hints), ".")
    return (
        Failure.WRONG_METRIC,
        f"{message}, but with one for {', '.join(shown)}{hint} {_ONE_NAME}",
    )


def _pruned(spec: StudySpec, curve: MetricTracker, message: str | None) -> Conclusion:
    last = curve.last_of(spec.metrics[0].name) if len(spec.metrics) == 1 else None
    if last is not None and spec.is_stepwise:
        last = mean(curve.samples(spec.metrics[0].name))
    values = [last] if last is not None and math.isfinite(last) else None
    return Conclusion(AttemptState.PRUNED, TrialState.PRUNED, values, message=message)


def _failed(failure: Failure, message: str, outcome: Outcome) -> Conclusion:
    is_lost = isinstance(outcome, Lost) and failure.is_infrastructure
    state = AttemptState.LOST if is_lost else AttemptState.FAILED
    traceback = outcome.traceback if isinstance(outcome, Failed) else None
    return Conclusion(
        state,
        None,
        failure=failure,
        message=message,
        traceback=traceback or None,
    )


def _message(outcome: Outcome) -> str | None:
    return outcome.message if isinstance(outcome, (Failed, Lost)) else None


def _excess(constraint: Constraint, value: float) -> Iterator[tuple[str, float]]:
    """Yield name and excess of each bound; the excess of NaN is infinite."""
    if constraint.min is not None:
        below = math.inf if math.isnan(value) else constraint.min - value
        yield f"{constraint.metric}.min", below
    if constraint.max is not None:
        above = math.inf if math.isnan(value) else value - constraint.max
        yield f"{constraint.metric}.max", above
