"""The pure decisions: retries, budgets, limits."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc import policy
from tunesvc.policy import (
    AskForTrials,
    Drain,
    Failure,
    Finish,
    GiveUp,
    Halt,
    Retry,
    StopCause,
    Usage,
)
from tunesvc.spec import Budget, Limits, Metric, Retries
from tunesvc.spec.sections.budget import StopWhen


def usage(trials: int = 0, running: int = 0, wall_s: float = 0.0, gpu_hours: float = 0.0) -> Usage:
    return Usage(trials, running, wall_s, gpu_hours)


def test_a_lost_attempt_is_retried_until_the_limit() -> None:
    retries = Retries(lost=2)
    assert isinstance(policy.after_failure(Failure.LOST, {}, retries), Retry)
    assert isinstance(policy.after_failure(Failure.LOST, {Failure.LOST: 1}, retries), Retry)
    assert isinstance(policy.after_failure(Failure.LOST, {Failure.LOST: 2}, retries), GiveUp)


def test_each_class_of_failure_counts_against_its_own_limit() -> None:
    retries = Retries(lost=1, error=1)
    earlier = {Failure.LOST: 1}
    assert isinstance(policy.after_failure(Failure.ERROR, earlier, retries), Retry)
    assert isinstance(policy.after_failure(Failure.LOST, earlier, retries), GiveUp)


def test_every_limit_is_about_a_failure() -> None:
    assert set(Retries.model_fields) <= set(Failure)


@pytest.mark.parametrize(
    "failure", [Failure.BAD_REPORT, Failure.NO_RESULT, Failure.WRONG_METRIC, Failure.ENTRYPOINT]
)
def test_what_would_only_happen_again_is_never_retried(failure: Failure) -> None:
    assert isinstance(
        policy.after_failure(failure, {}, Retries(lost=9, error=9, timeout=9)), GiveUp
    )


@given(
    failures=st.lists(st.sampled_from(list(Failure)), max_size=40),
    retries=st.builds(Retries, **dict.fromkeys(Retries.model_fields, st.integers(0, 4))),
)
def test_no_sequence_of_failures_is_retried_more_often_than_the_limits_allow(
    failures: list[Failure], retries: Retries
) -> None:
    earlier: Counter[Failure] = Counter()
    attempts = 1
    for failure in failures:
        decision = policy.after_failure(failure, earlier, retries)
        earlier[failure] += 1
        if isinstance(decision, GiveUp):
            break
        attempts += 1
    assert attempts <= 1 + sum(retries.model_dump().values())


@given(
    trials=st.integers(1, 50),
    parallelism=st.integers(1, 9),
    running=st.integers(0, 9),
    asked=st.integers(0, 50),
)
def test_the_budget_of_trials_is_never_exceeded(
    trials: int, parallelism: int, running: int, asked: int
) -> None:
    asked, running = min(asked, trials), min(running, asked)
    move = policy.next_move(Budget(trials=trials), usage(asked, running), parallelism)
    if isinstance(move, AskForTrials):
        assert asked + move.trials <= trials
        assert running + move.trials <= max(parallelism, running)
    else:
        assert asked == trials


def test_a_spent_budget_of_trials_lets_running_ones_finish() -> None:
    assert isinstance(policy.next_move(Budget(trials=3), usage(3, 1), 2), Drain)
    assert isinstance(policy.next_move(Budget(trials=3), usage(3, 0), 2), Finish)


@pytest.mark.parametrize(
    ("budget", "spent"),
    [
        (Budget(wall=60.0), usage(5, 2, wall_s=60.0)),
        (Budget(gpu_hours=1.5), usage(5, 2, gpu_hours=1.5)),
    ],
)
def test_a_spent_budget_of_time_stops_running_ones(budget: Budget, spent: Usage) -> None:
    move = policy.next_move(budget, spent, 2)
    assert isinstance(move, Halt)
    assert move.cause is StopCause.BUDGET
    assert isinstance(
        policy.next_move(budget, usage(5, 0, spent.wall_s, spent.gpu_hours), 2), Finish
    )


def test_the_fraction_spent_is_that_of_the_tightest_limit() -> None:
    budget = Budget(trials=10, wall=100.0)
    assert policy.fraction_spent(budget, usage(6, 1, wall_s=20)) == 0.5
    assert policy.fraction_spent(budget, usage(6, 1, wall_s=90)) == 0.9


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        ("minimize", 0.1, True),
        ("minimize", 0.2, True),
        ("minimize", 0.3, False),
        ("maximize", 0.3, True),
    ],
)
def test_a_target_is_reached_from_its_good_side(goal: str, value: float, reached: bool) -> None:
    metric = Metric.model_validate({"name": "m", "goal": goal, "target": 0.2})
    assert policy.reached_target((metric,), [value]) is reached


def test_a_study_without_target_never_reaches_it() -> None:
    assert not policy.reached_target((Metric(name="m"),), [0.0])


def test_a_study_is_broken_when_trials_only_ever_fail() -> None:
    limits = Limits(failures=5)
    assert policy.is_broken(Failure.ENTRYPOINT, 1, 0, limits)
    assert not policy.is_broken(Failure.ENTRYPOINT, 1, 1, limits)
    assert policy.is_broken(Failure.ERROR, 5, 0, limits)
    assert not policy.is_broken(Failure.ERROR, 4, 0, limits)
    assert not policy.is_broken(Failure.ERROR, 500, 1, limits)


def test_limits_name_what_was_exceeded() -> None:
    limits = Limits(wall=10.0, silence=3.0)
    assert policy.overdue(limits, running_s=9.0, silent_s=1.0) is None
    assert policy.overdue(limits, running_s=11.0, silent_s=1.0)[0] is StopCause.WALL  # type: ignore[index]
    assert policy.overdue(limits, running_s=5.0, silent_s=4.0)[0] is StopCause.SILENCE  # type: ignore[index]


# --- an early end
# -----------------------------------------------------------------------------------


def _expected(
    values: list[float | None], per: str = "trial", after: int = 4, **usage: float
) -> policy.ImprovementForecast | None:
    stop = StopWhen.model_validate({"improvement_below": 0.01, "per": per, "after": after})
    spent = policy.Usage(
        trials=len(values),
        running=0,
        wall_s=usage.get("wall_s", 0.0),
        gpu_hours=usage.get("gpu_hours", 0.0),
    )
    return policy.forecast(stop, policy.incumbents(values, "minimize"), spent)


def test_the_best_so_far_passes_over_what_may_not_be_best() -> None:
    assert policy.incumbents([None, 3.0, 4.0, None, 1.0], "minimize") == [None, 3.0, 3.0, 3.0, 1.0]
    assert policy.incumbents([3.0, 4.0, 1.0], "maximize") == [3.0, 4.0, 4.0]


def test_a_curve_that_gains_as_much_at_each_doubling_is_continued() -> None:
    values: list[float | None] = [-math.log2(n) for n in range(1, 65)]
    expected = _expected(values)
    assert expected is not None
    assert expected.improvement == pytest.approx(1 / 64)  # one doubling more gains 1 in 64 trials
    assert not expected.is_too_low


def test_a_forecast_per_gpu_hour_counts_what_trials_have_cost() -> None:
    values: list[float | None] = [1.0, 0.9, 0.8, 0.7]
    per_trial, per_hour = _expected(values), _expected(values, per="gpu_hour", gpu_hours=2.0)
    assert per_trial is not None
    assert per_hour is not None
    assert per_hour.improvement == pytest.approx(2 * per_trial.improvement)  # two trials an hour


def test_a_study_without_improvement_ends_once_what_runs_has_ended() -> None:
    expected = _expected([1.0] * 8)
    assert expected is not None
    assert expected.is_too_low
    budget = Budget(trials=100)
    draining = policy.next_move(budget, Usage(9, 1, 0.0, 0.0), 4, expected=expected)
    assert isinstance(draining, policy.Drain)
    assert isinstance(
        policy.next_move(budget, Usage(8, 0, 0.0, 0.0), 4, expected=expected), policy.Finish
    )
    assert "stop_when" in draining.reason


@pytest.mark.parametrize("values", [[1.0] * 3, [None] * 8, [None] * 4 + [1.0] * 4])
def test_too_early_to_tell(values: list[float | None]) -> None:
    assert _expected(values) is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=4, max_size=60))
def test_a_forecast_is_never_negative(values: list[float | None]) -> None:
    expected = _expected(values)
    assert expected is None or expected.improvement >= 0
