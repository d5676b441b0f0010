"""Sets of integers as ranges: exact and small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesvc.execution.worker.int_ranges import IntRangeSet


@given(st.lists(st.integers(0, 40)))
def test_a_step_is_new_exactly_once_in_whatever_order(added: list[int]) -> None:
    steps, seen = IntRangeSet(), set[int]()
    for step in added:
        assert steps.add(step) == (step not in seen)
        seen.add(step)
    covered = [step for first, last in steps.ranges for step in range(first, last + 1)]
    assert covered == sorted(seen)
    assert all(
        last + 1 < first
        for (_, last), (first, _) in zip(steps.ranges, steps.ranges[1:], strict=False)
    )


def test_a_million_steps_in_a_row_are_one_range() -> None:
    steps = IntRangeSet()
    assert all(steps.add(step) for step in range(1_000_000))
    assert steps.ranges == [(0, 999_999)]


def test_the_greatest_steps_fit() -> None:
    steps = IntRangeSet()
    assert steps.add(2**31)
    assert not steps.add(2**31)
