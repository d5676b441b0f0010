"""Number of attempts launched beyond those that may run at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.coordinator.prefetch import BACKLOG_MAX, Prefetcher

HANDOVER_S = 0.2


def after(lasted_s: float, ends: int, *, every_s: float, together: int = 1) -> Prefetcher:
    """A prefetch that has seen so many attempts end, so many of them at a time."""
    prefetch = Prefetcher(HANDOVER_S)
    for end in range(ends):
        prefetch.ended(lasted_s, (end // together) * every_s)
    return prefetch


def test_short_attempts_have_as_many_waiting_as_end_in_one_handing_over() -> None:
    assert after(1.0, 32, every_s=0.125).target(8) == 2
    assert after(1.0, 32, every_s=1.0, together=8).target(8) == 8


def test_very_short_attempts_have_as_many_in_each_backlog_as_end_in_one_hand_over() -> None:
    prefetch = after(0.05, 200, every_s=0.05, together=8)
    assert prefetch.worker_backlog == 4
    assert prefetch.target(8) == 32
    prefetch = after(0.0, 200, every_s=0.0)
    assert prefetch.worker_backlog == BACKLOG_MAX
    assert prefetch.target(8) == 8 * BACKLOG_MAX
    assert after(0.01, 200, every_s=0.01).target(8) == 21


@pytest.mark.parametrize("lasted_s", [0.2, 1.0, 9.0])
def test_where_an_attempt_lasts_a_handing_over_one_waits_in_each_worker(lasted_s: float) -> None:
    prefetch = after(lasted_s, 200, every_s=0.001)
    assert prefetch.worker_backlog == 1
    assert prefetch.target(8) == 8


@pytest.mark.parametrize("lasted_s", [11.0, 3600.0])
def test_long_attempts_have_none(lasted_s: float) -> None:
    assert after(lasted_s, 32, every_s=lasted_s, together=8).target(8) == 0


def test_a_search_that_tries_one_at_a_time_knows_every_result() -> None:
    assert after(0.01, 32, every_s=0.01).target(1) == 0


def test_nothing_is_foreseen_before_as_many_have_ended_as_run() -> None:
    assert after(0.1, 7, every_s=0.1).target(8) == 0


def test_a_study_whose_attempts_become_long_has_none_any_more() -> None:
    prefetch = after(1.0, 32, every_s=0.1)
    for end in range(32):
        prefetch.ended(60.0, 100.0 + end)
    assert prefetch.target(8) == 0


@given(
    st.lists(st.tuples(st.floats(0.0, 1e5), st.floats(0.0, 50.0)), max_size=200), st.integers(1, 64)
)
def test_there_are_never_more_than_lines_hold(ends: list[tuple[float, float]], slots: int) -> None:
    prefetch, now_s = Prefetcher(HANDOVER_S), 0.0
    for lasted_s, later_s in ends:
        now_s += later_s
        prefetch.ended(lasted_s, now_s)
        assert 1 <= prefetch.worker_backlog <= BACKLOG_MAX
        assert 0 <= prefetch.target(slots) <= slots * prefetch.worker_backlog
