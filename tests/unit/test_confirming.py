"""Which finalist is best, from repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesvc.search.confirming import compare

REPEATS = st.lists(st.floats(-100, 100, allow_nan=False), max_size=6)


def test_the_interval_of_a_single_finalist_is_students() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    (one,) = compare({7: 0.5}, {7: values}, {}, "minimize")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (one.mean, one.low, one.high, one.chance) == pytest.approx((np.mean(values), low, high, 1.0))


def test_a_lucky_draw_is_found_out() -> None:
    found = compare({1: 0.1, 2: 0.2}, {1: [0.4, 0.5, 0.6], 2: [0.2, 0.21, 0.3]}, {}, "minimize")
    assert [one.number for one in found] == [2, 1]
    assert found[0].chance is not None
    assert found[0].chance > 0.95


def test_one_repeat_each_says_nothing_of_the_noise() -> None:
    found = compare({1: 0.1, 2: 0.2}, {1: [0.4], 2: [0.3]}, {1: 2}, "minimize")
    assert [(one.number, one.low, one.chance, one.failed) for one in found] == [(2, None, None, 0), (1, None, None, 2)]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 9), REPEATS, min_size=1, max_size=4), st.sampled_from(["minimize", "maximize"]))
def test_chances_add_up_and_the_best_mean_comes_first(repeats: dict[int, list[float]], goal: str) -> None:
    found = compare(dict.fromkeys(repeats, 0.0), repeats, {}, goal)  # type: ignore[arg-type]
    assert sorted(one.number for one in found) == sorted(repeats)
    means = [one.mean for one in found if one.mean is not None]
    assert means == sorted(means, reverse=goal == "maximize")
    chances = [one.chance for one in found if one.chance is not None]
    assert not chances or sum(chances) == pytest.approx(1.0)
    assert all(one.low <= one.mean <= one.high for one in found if one.low is not None)  # type: ignore[operator]
