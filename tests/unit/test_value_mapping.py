"""Mapping of one study's values to those of another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection

from tunesvc.search.value_mapping import ValueMapping

MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
EARLIER = list(np.random.default_rng(0).normal(size=60))
values = st.floats(-10, 10)


def pairs_of(shift: float, slope: float, seed: int) -> list[tuple[float, float]]:
    """The three best configurations, run again with some scatter."""
    rng = np.random.default_rng(seed)
    return [(x, shift + slope * (x + 0.3 * rng.normal())) for x in sorted(EARLIER)[:3]]


@pytest.mark.parametrize("slope", [0.05, 1.0, 20.0])
def test_three_configurations_that_lie_close_together_tell_the_scale_by_their_scatter(
    slope: float,
) -> None:
    found = [
        ValueMapping.of(pairs_of(5.0, slope, seed), EARLIER, MINIMIZE).slope for seed in range(40)
    ]
    assert slope / 3 < np.quantile(found, 0.1) < np.quantile(found, 0.9) < slope * 3


@settings(max_examples=50, deadline=None)
@given(here=st.lists(values, min_size=1, max_size=5), at=st.lists(values, min_size=5, max_size=5))
def test_the_order_of_the_earlier_values_is_kept_whatever_is_measured(
    here: list[float], at: list[float]
) -> None:
    relation = ValueMapping.of(list(zip(at, here, strict=False)), EARLIER, MINIMIZE)
    assert relation.slope > 0
    assert sorted(map(relation, EARLIER)) == [relation(value) for value in sorted(EARLIER)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 99), factor=st.sampled_from([-3.0, 0.1, 1e4]), offset=values)
def test_units_of_the_earlier_study_do_not_matter(seed: int, factor: float, offset: float) -> None:
    pairs = pairs_of(1.0, 2.0, seed)
    plain = ValueMapping.of(pairs, EARLIER, MINIMIZE)
    changed = [offset - 100 * abs(factor) + factor * value for value in EARLIER]
    moved = [(offset - 100 * abs(factor) + factor * known, factor * here) for known, here in pairs]
    other = ValueMapping.of(moved, changed, MINIMIZE if factor > 0 else MAXIMIZE)
    assert other.slope == pytest.approx(plain.slope)


def test_one_configuration_tells_a_shift_and_none_tells_nothing() -> None:
    assert ValueMapping.of([(1.0, 3.0)], EARLIER, MINIMIZE) == ValueMapping(2.0, 1.0)
    assert ValueMapping.of([], EARLIER, MINIMIZE)(0.7) == 0.7
