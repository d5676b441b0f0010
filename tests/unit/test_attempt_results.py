"""Consequences of an attempt's end for its trial."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from tests.support.specs import make_spec
from tunesvc.coordinator.attempt_state.attempt_results import conclude
from tunesvc.coordinator.attempt_state.live_attempts import MetricTracker
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.executor import Failed, Finished, Lost, StoppedEarly
from tunesvc.policy import Failure, StopCause

SPEC = make_spec()


def curve(*losses: float) -> MetricTracker:
    made = MetricTracker({"loss": "minimize"})
    for step, loss in enumerate(losses):
        made.add(step, {"loss": loss})
    return made


def test_a_returned_value_beats_the_curve() -> None:
    conclusion = conclude(SPEC, curve(0.5, 0.4), Finished({"loss": 0.3}), None)
    assert (conclusion.trial_state, conclusion.values) == (TrialState.COMPLETE, [0.3])


@pytest.mark.parametrize(("take", "value"), [("last", 0.6), ("best", 0.2)])
def test_without_a_returned_value_the_metrics_take_decides(take: str, value: float) -> None:
    spec = make_spec(metrics=[{"name": "loss", "take": take}])
    assert conclude(spec, curve(0.5, 0.2, 0.6), Finished(), None).values == [value]


def test_the_last_value_is_that_of_the_greatest_step_in_whatever_order_steps_came() -> None:
    shuffled = MetricTracker({"loss": "minimize"})
    for step in (3, 1, 2):
        shuffled.add(step, {"loss": step / 10})
    assert conclude(SPEC, shuffled, Finished(), None).values == [0.3]


def test_no_value_at_all_is_a_failure_that_says_what_to_do() -> None:
    conclusion = conclude(SPEC, curve(), Finished(), None)
    assert conclusion.failure is Failure.NO_RESULT
    assert "trial.report" in (conclusion.message or "")


def test_a_value_under_another_name_is_reported_with_both_names() -> None:
    """Case W19."""
    conclusion = conclude(SPEC, curve(), Finished({"los": 1.0, "epochs": 3.0}), None)
    assert conclusion.failure is Failure.WRONG_METRIC
    assert (conclusion.message or "").startswith(
        "ended without a value for loss, but with one for los, epochs, did you mean `loss`?"
    )
    reported = MetricTracker({"loss": "minimize"})
    reported.add(0, {"lss": 1.0})
    assert conclude(SPEC, reported, Finished(), None).failure is Failure.WRONG_METRIC


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_result_that_is_not_finite_fails_the_trial_and_is_in_the_message(
    value: float, goal: str
) -> None:
    """Fault 22, and case P3: as in Optuna a failed trial has no values."""
    spec = make_spec(metrics=[{"name": "loss", "goal": goal}])
    conclusion = conclude(spec, curve(0.5), Finished({"loss": value}), None)
    assert conclusion.failure is Failure.NAN
    assert conclusion.values is None
    assert conclusion.message == f"the result is not finite: loss = {value:g}"


def test_a_pruned_trial_keeps_its_last_value() -> None:
    conclusion = conclude(SPEC, curve(0.5, 0.4), StoppedEarly(), StopCause.PRUNE)
    assert (conclusion.trial_state, conclusion.values) == (TrialState.PRUNED, [0.4])


def test_a_pruned_trial_whose_last_value_is_nan_has_none() -> None:
    assert conclude(SPEC, curve(0.5, math.nan), StoppedEarly(), StopCause.PRUNE).values is None


def test_an_objective_may_prune_itself() -> None:
    assert conclude(SPEC, curve(0.5), StoppedEarly(), None).trial_state == TrialState.PRUNED


@pytest.mark.parametrize(
    "outcome", [StoppedEarly(), Failed("error", "cleanup failed"), Lost("killed")]
)
def test_a_requested_stop_decides_however_the_attempt_ended(
    outcome: StoppedEarly | Failed | Lost,
) -> None:
    assert conclude(SPEC, curve(0.5), outcome, StopCause.PRUNE).trial_state == TrialState.PRUNED
    shutdown = conclude(SPEC, curve(0.5), outcome, StopCause.SHUTDOWN)
    assert (shutdown.attempt_state, shutdown.trial_state) == (AttemptState.INTERRUPTED, None)
    assert conclude(SPEC, curve(0.5), outcome, StopCause.WALL).failure is Failure.TIMEOUT


@pytest.mark.parametrize("cause", list(StopCause))
def test_a_result_that_arrives_after_the_request_to_stop_counts(cause: StopCause) -> None:
    assert (
        conclude(SPEC, curve(0.5), Finished({"loss": 0.1}), cause).trial_state
        == TrialState.COMPLETE
    )


@pytest.mark.parametrize(("take", "value"), [("last", 0.6), ("best", 0.2)])
@pytest.mark.parametrize("cause", list(StopCause))
def test_an_objective_that_ended_before_it_saw_a_stop_is_complete(
    cause: StopCause, take: str, value: float
) -> None:
    spec = make_spec(metrics=[{"name": "loss", "take": take}])
    conclusion = conclude(spec, curve(0.5, 0.2, 0.6), Finished(), cause)
    assert (conclusion.trial_state, conclusion.values) == (TrialState.COMPLETE, [value])


def test_a_limit_that_was_exceeded_is_the_message_even_when_the_worker_had_to_be_killed() -> None:
    conclusion = conclude(
        SPEC, curve(), Lost("the worker was killed"), StopCause.WALL, "ran longer than 5 s"
    )
    assert conclusion.message == "ran longer than 5 s"


def test_a_lost_worker_is_lost_and_an_exception_is_an_error() -> None:
    lost = conclude(SPEC, curve(), Lost("worker killed"), None)
    assert (lost.attempt_state, lost.failure) == (AttemptState.LOST, Failure.LOST)
    error = conclude(SPEC, curve(), Failed("error", "boom", "Traceback ..."), None)
    assert (error.attempt_state, error.failure, error.traceback) == (
        AttemptState.FAILED,
        Failure.ERROR,
        "Traceback ...",
    )


def test_constraints_are_feasible_at_or_below_zero() -> None:
    spec = make_spec(constraints=[{"metric": "ms", "min": 1.0, "max": 20.0}])
    assert conclude(spec, curve(), Finished({"loss": 0.1, "ms": 25.0}), None).constraints == {
        "ms.min": -24.0,
        "ms.max": 5.0,
    }
    assert conclude(spec, curve(), Finished({"loss": 0.1, "ms": math.nan}), None).constraints == {
        "ms.min": math.inf,
        "ms.max": math.inf,
    }
    assert conclude(spec, curve(), Finished({"loss": 0.1}), None).failure is Failure.NO_RESULT


def test_metrics_that_are_no_objectives_are_kept_beside_the_values() -> None:
    conclusion = conclude(SPEC, curve(0.5), Finished({"loss": 0.1, "ms": 3.0}), None)
    assert conclusion.metrics == {"ms": 3.0}


@pytest.mark.parametrize(
    "cause", [StopCause.STUDY_STOPPED, StopCause.BUDGET, StopCause.TARGET, StopCause.TRIAL_STOPPED]
)
def test_a_trial_that_is_stopped_before_its_first_report_is_not_pruned(cause: StopCause) -> None:
    """Samplers would take a pruned trial for a poor one."""
    conclusion = conclude(SPEC, curve(), StoppedEarly(), cause, "the study was stopped")
    assert conclusion.trial_state == TrialState.FAIL
    assert conclusion.failure is None
    assert conclusion.message == "stopped before its first report: the study was stopped"
    assert conclude(SPEC, curve(0.5), StoppedEarly(), cause).trial_state == TrialState.PRUNED
