"""Which finalist is best, from repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesvc.queries.confirmation import Confirmation
from tunesvc.search.analysis.finalists import compare

REPEATS = st.dictionaries(st.integers(0, 6), st.floats(-100, 100, allow_nan=False), max_size=6)


def own(*values: float, of: int = 0) -> dict[int, float]:
    """Repeats with seeds that no other finalist has."""
    return {100 * of + place: value for place, value in enumerate(values)}


def test_the_interval_of_a_single_finalist_is_students() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    (one,) = compare({7: 0.5}, {7: own(*values)}, {}, "minimize")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (one.mean, one.low, one.high, one.chance) == pytest.approx(
        (np.mean(values), low, high, 1.0)
    )


def test_a_lucky_draw_is_found_out() -> None:
    found = compare(
        {1: 0.1, 2: 0.2},
        {1: own(0.4, 0.5, 0.6, of=1), 2: own(0.2, 0.21, 0.3, of=2)},
        {},
        "minimize",
    )
    assert [one.number for one in found] == [2, 1]
    assert found[0].chance is not None
    assert found[0].chance > 0.95


def test_one_repeat_each_says_nothing_of_the_noise() -> None:
    found = compare({1: 0.1, 2: 0.2}, {1: own(0.4, of=1), 2: own(0.3, of=2)}, {1: 2}, "minimize")
    assert [(one.number, one.low, one.chance, one.failed) for one in found] == [
        (2, None, None, 0),
        (1, None, None, 2),
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), REPEATS, min_size=1, max_size=4),
    st.sampled_from(["minimize", "maximize"]),
)
def test_chances_add_up_and_the_best_mean_comes_first(
    repeats: dict[int, dict[int, float]], goal: str
) -> None:
    found = compare(dict.fromkeys(repeats, 0.0), repeats, {}, goal)  # type: ignore[arg-type]
    assert sorted(one.number for one in found) == sorted(repeats)
    means = [one.mean for one in found if one.mean is not None]
    assert means == sorted(means, reverse=goal == "maximize")
    chances = [one.chance for one in found if one.chance is not None]
    assert not chances or sum(chances) == pytest.approx(1.0)
    assert all(one.low <= one.mean <= one.high for one in found if one.low is not None)  # type: ignore[operator]


def test_what_a_seed_does_to_all_alike_does_not_hide_which_is_best() -> None:
    """Splits differ by far more than the finalists, which differ alike on each."""
    does = {0: 0.0, 1: 3.0, 2: -2.0, 3: 5.0}
    noise = np.random.default_rng(0).normal(0.0, 0.01, (3, 4))
    repeats = {
        f: {seed: 0.1 * f + value + noise[f, seed] for seed, value in does.items()}
        for f in range(3)
    }
    found = compare(dict.fromkeys(repeats, 0.0), repeats, {}, "minimize")
    assert [one.number for one in found] == [0, 1, 2]
    assert found[0].chance is not None
    assert found[0].chance > 0.99
    assert found[0].low is not None
    assert found[0].low < -2.0, "how good it is, is as unsure as with one finalist"
    (alone,) = compare({0: 0.0}, {0: repeats[0]}, {}, "minimize")
    assert (found[0].low, found[0].high) == pytest.approx((alone.low, alone.high), rel=0.1)


def test_differences_with_equal_seeds_are_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    does, one, other = rng.normal(0, 1, 6), rng.normal(0, 0.2, 6), rng.normal(0.1, 0.2, 6)
    repeats = {1: dict(enumerate(does + one)), 2: dict(enumerate(does + other))}
    found = {f.number: f.chance for f in compare({1: 0.0, 2: 0.0}, repeats, {}, "minimize")}
    expected = stats.ttest_rel(does + other, does + one, alternative="greater").pvalue
    assert found[2] == pytest.approx(expected, abs=0.02)


def test_a_repeat_that_failed_leaves_the_others_paired() -> None:
    does = [0.0, 4.0, -3.0, 1.0]
    repeats = {
        f: {seed: value + 0.2 * f + 0.01 * (seed * f % 3) for seed, value in enumerate(does)}
        for f in range(3)
    }
    del repeats[0][1]  # the hardest of all: without it the mean is lower by itself
    del repeats[2][2]
    found = compare(dict.fromkeys(repeats, 0.0), repeats, {0: 1, 2: 1}, "maximize")
    assert max(found, key=lambda one: one.chance or 0.0).number == 2


@pytest.mark.parametrize("value", [0.96, 1e-9, 0.0])
def test_equal_repeats_say_nothing_about_noise(value: float) -> None:
    """The rest of a fit is rounding then, and no interval follows from it."""
    repeats = {f: dict.fromkeys(range(5), value + (f == 2)) for f in range(3)}
    found = compare(dict.fromkeys(repeats, 0.0), repeats, {}, "minimize")
    assert [one.number for one in found] == [0, 1, 2]
    assert all(one.chance is None and one.low is None for one in found)
    shown = Confirmation("bowl:confirm", "minimize", "loss", found, None)
    assert shown.verdict.startswith(
        "Trials 0, 1 are level. Every repeat of a trial gave the same value"
    )
    assert shown.winner is None
