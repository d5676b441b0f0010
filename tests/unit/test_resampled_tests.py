"""Tests of configurations by their values on splits that share rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tunesvc.search.analysis.resampled_tests import (
    corrected_error,
    degradation_p_value,
    improvement_p_value,
)
from tunesvc.search.analysis.samples import standard_error
from tunesvc.spec.goals import Goal

OLD = (0.30, 0.28, 0.33, 0.29, 0.31)
NEW = (0.25, 0.26, 0.27, 0.24, 0.29)


def degradation(
    before: tuple[float, ...], after: tuple[float, ...], goal: Goal, ratio: float
) -> float | None:
    errors = (corrected_error(before, ratio), corrected_error(after, ratio))
    return degradation_p_value(before, after, goal, errors)


def test_the_paired_test_is_nadeau_and_bengios() -> None:
    gains = np.subtract(OLD, NEW)
    statistic = gains.mean() / math.sqrt(gains.var(ddof=1) * (1 / 5 + 0.25))
    expected = stats.t.sf(statistic, 4)
    assert improvement_p_value(NEW, OLD, "minimize", 0.25) == pytest.approx(expected)
    # without validation rows it is Student's own
    plain = stats.ttest_rel(OLD, NEW, alternative="greater").pvalue
    assert improvement_p_value(NEW, OLD, "minimize", 0.0) == pytest.approx(plain)


def test_the_goal_decides_what_better_is() -> None:
    better = improvement_p_value(NEW, OLD, "minimize", 0.25)
    worse = improvement_p_value(NEW, OLD, "maximize", 0.25)
    assert better is not None
    assert worse == pytest.approx(1 - better)
    grown = degradation(NEW, OLD, "minimize", 0.25)
    fallen = degradation(NEW, OLD, "maximize", 0.25)
    assert grown is not None
    assert fallen == pytest.approx(1 - grown)


def test_the_test_of_degradation_is_welchs() -> None:
    expected = stats.ttest_ind(OLD, NEW, equal_var=False, alternative="greater").pvalue
    assert degradation(NEW, OLD, "minimize", 0.0) == pytest.approx(expected)


def test_failed_repeats_leave_their_pairs_out() -> None:
    holes = (math.nan, *NEW[1:])
    expected = improvement_p_value(NEW[1:], OLD[1:], "minimize", 0.25)
    assert improvement_p_value(holes, OLD, "minimize", 0.25) == pytest.approx(expected)
    assert improvement_p_value((math.nan,) * 3 + NEW[3:], OLD, "minimize", 0.25) is None


def test_repeats_without_noise_decide_nothing() -> None:
    assert improvement_p_value((0.2,) * 5, (0.3,) * 5, "minimize", 0.25) is None
    assert improvement_p_value((0.3,) * 5, (0.3,) * 5, "minimize", 0.25) == 1.0
    assert improvement_p_value((0.0,) * 5, (0.0,) * 5, "minimize", 0.25) == 1.0
    assert degradation((0.2,) * 5, (0.3,) * 5, "minimize", 0.25) is None
    assert degradation((0.3,) * 5, (0.3,) * 5, "minimize", 0.25) == 1.0
    assert degradation((), OLD, "minimize", 0.25) is None


def test_the_standard_error_counts_shared_rows() -> None:
    plain = np.std(OLD, ddof=1) / math.sqrt(5)
    assert corrected_error(OLD, 0.0) == pytest.approx(plain)
    assert corrected_error(OLD, 0.25) == pytest.approx(plain * math.sqrt(2.25))
    assert corrected_error(OLD[:1], 0.25) is None


def test_a_mean_of_folds_that_are_not_all_finite_has_no_standard_error() -> None:
    """A mean over folds needs all of them; splits that failed are left out of a comparison."""
    assert standard_error(OLD) == pytest.approx(stats.sem(OLD))
    assert standard_error(OLD, 0.25) == corrected_error(OLD, 0.25)
    assert standard_error((*OLD, math.nan)) is None
    assert corrected_error((*OLD, math.nan), 0.25) == corrected_error(OLD, 0.25)


def test_equal_configurations_are_rarely_taken_for_better() -> None:
    """Means of validation errors on resplits of 400 rows, of two classifiers that are equally
    good: the plain t test would promote far more than 5 %."""
    rng = np.random.default_rng(0)
    promoted = plain = 0
    for _ in range(400):
        wrong = rng.random((2, 400)) < 0.2  # of each row, by each of them
        splits = [rng.choice(400, 80, replace=False) for _ in range(5)]
        new, old = (tuple(float(one[split].mean()) for split in splits) for one in wrong)
        promoted += (improvement_p_value(new, old, "minimize", 0.25) or 1.0) <= 0.05
        plain += stats.ttest_rel(old, new, alternative="greater").pvalue <= 0.05
    assert promoted <= 30 < plain
