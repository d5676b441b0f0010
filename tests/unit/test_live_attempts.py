"""Counts of live attempts as they come and go: equal to counting all of them each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.coordinator.attempt_state.deadlines import Deadlines
from tunesvc.coordinator.attempt_state.live_attempts import LiveAttempt, OpenTrials
from tunesvc.db.recovery import StoredExecution
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.executor import AttemptId

DEED = st.tuples(
    st.sampled_from(["open", "adopt", "start", "speak", "close"]),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.5, 3.0]),
)


def held_s(live: LiveAttempt, now_s: float) -> float:
    if live.started_s is None:
        return 0.0
    return (now_s if live.silent_since_s is None else live.silent_since_s) - live.started_s


@given(deeds=st.lists(DEED, max_size=60))
def test_gpu_time_is_the_sum_over_all_attempts(deeds: list[tuple[str, int, float]]) -> None:
    live_attempts = OpenTrials([])
    ended_s = 0.0
    for number, (deed, which, gpus) in enumerate(deeds):
        now_s = 100.0 + 7.0 * number
        live = list(live_attempts)[which % len(live_attempts)] if live_attempts else None
        if deed == "open":
            live_attempts.open(number, number, {}, cpus=2 * gpus, gpus=gpus, now_s=now_s)
        elif deed == "adopt":
            ran_s = [None, 50.0, 5.0][which % 3]
            silent_s = None if ran_s is None else ran_s / 5
            earlier = StoredExecution(
                1, AttemptState.RUNNING, 0, 2 * gpus, gpus, ran_s, silent_s, None, None, None, None
            )
            live_attempts.adopt(number, earlier, number, {}, now_s=now_s)
        elif live is not None and deed == "start" and live.started_s is None:
            live_attempts.record_heartbeat(live)
            live_attempts.start(live, now_s)
        elif live is not None and deed == "speak":
            live_attempts.record_heartbeat(live)
        elif live is not None and deed == "close":
            ended_s += live.gpus * held_s(live, now_s)
            live_attempts.close(live, now_s)
        later_s = now_s + 3.0
        assert live_attempts.gpu_s(later_s) == pytest.approx(
            ended_s + sum(live.gpus * held_s(live, later_s) for live in live_attempts)
        )
        assert live_attempts.cpu_hours(later_s) == pytest.approx(
            2 * live_attempts.gpu_hours(later_s)
        )


@given(moments=st.lists(st.floats(0, 10), max_size=30), now_s=st.floats(0, 10))
def test_due_attempts_are_returned_once_and_no_others(moments: list[float], now_s: float) -> None:
    deadlines = Deadlines()
    for number, at_s in enumerate(moments):
        deadlines.put(at_s, AttemptId(number, 1))
    due = [attempt.trial_id for attempt in deadlines.pop_due(now_s)]
    assert sorted(due) == [number for number, at_s in enumerate(moments) if at_s <= now_s]
    assert deadlines.pop_due(now_s) == []


def test_attempts_with_reports_are_returned_once() -> None:
    live_attempts = OpenTrials([])
    silent, loud = (
        live_attempts.open(number, number, {}, cpus=1.0, gpus=0.0, now_s=0.0) for number in (1, 2)
    )
    live_attempts.add_report(loud, 3)
    live_attempts.add_report(loud, 4)
    assert live_attempts.pop_reported() is loud
    assert loud.unchecked_steps == [3, 4]
    assert live_attempts.pop_reported() is None
    assert silent.unchecked_steps == []
