"""Drift between two tables: tests by column, correction for their number, size of the change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunesvc.drift.column_drift import compare_column
from tunesvc.drift.drift_report import DriftReport, compare_tables, count_carried, holm


def column(values: object) -> pa.ChunkedArray:
    """A column of a table."""
    return pa.chunked_array([pa.array(values, from_pandas=True)])


def sample(rng: np.random.Generator, rows: int, shift: float = 0.0) -> pa.Table:
    """A table of numbers, a skewed one with gaps, two kinds of categories, and a target."""
    skewed = rng.exponential(1.0, rows)
    skewed[rng.random(rows) < 0.1] = np.nan
    return pa.table(
        {
            "normal": rng.normal(shift, 1.0, rows),
            "skewed": pa.array(skewed, from_pandas=True),
            "city": rng.choice(["Bonn", "Oslo", "Rome"], rows, p=[0.5, 0.3, 0.2]),
            "level": rng.integers(0, 5, rows),
            "bought": rng.integers(0, 2, rows),
        }
    )


def compare(before: pa.Table, after: pa.Table, **options: float) -> DriftReport:
    """The report on all columns."""
    names = list(dict.fromkeys([*before.column_names, *after.column_names]))
    return compare_tables(before, after, columns=names, target="bought", **options)


def test_numbers_have_the_p_value_and_distance_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(0, 1, 300), rng.normal(0.4, 1, 200)
    (test,) = compare_column("x", column(before), column(after))
    expected = stats.ks_2samp(before, after, method="exact")
    assert (test.p_value, test.distance) == (expected.pvalue, expected.statistic)
    every = np.concatenate([before, after])
    shares = [(one[None, :] <= every[:, None]).mean(axis=1) for one in (before, after)]
    assert test.distance == pytest.approx(np.abs(shares[0] - shares[1]).max())


def test_categories_have_the_p_value_of_the_chi_square_test() -> None:
    before, after = ["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 70
    (test,) = compare_column("x", column(before), column(after))
    expected = np.array([[45, 55], [45, 55]])
    statistic = ((np.array([[60, 40], [30, 70]]) - expected) ** 2 / expected).sum()
    assert test.p_value == pytest.approx(stats.chi2.sf(statistic, 1))
    assert test.distance == pytest.approx(0.3)
    shares = (np.array([60.5, 40.5]) / 101, np.array([30.5, 70.5]) / 101)
    assert test.psi == pytest.approx(
        ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()
    )


def test_rare_categories_count_together() -> None:
    many = [f"id-{number}" for number in range(100)]
    (test,) = compare_column("x", column(many), column([f"new-{n}" for n in range(100)]))
    assert test.p_value == 1.0  # each value is once, so that there is nothing to compare
    common = ["a"] * 90
    (test,) = compare_column("x", column([*common, *many[:10]]), column([*common, *many[50:60]]))
    assert test.p_value == 1.0


def test_a_changed_share_of_gaps_is_a_change() -> None:
    before, after = np.arange(200.0), np.arange(200.0)
    after[::3] = np.nan
    gaps, _ = compare_column("x", column(before), column(after))
    assert gaps.kind == "gaps"
    assert gaps.p_value == pytest.approx(stats.fisher_exact([[0, 200], [67, 133]]).pvalue)
    assert gaps.distance == pytest.approx(67 / 200)


def test_a_column_that_has_become_empty_has_a_test_of_gaps_alone() -> None:
    tests = compare_column("x", column([1.0, 2.0] * 20), column([None] * 30))
    assert [test.kind for test in tests] == ["gaps"]


def test_only_the_shifted_column_drifts_and_the_target_has_the_first_line() -> None:
    rng = np.random.default_rng(1)
    report = compare(sample(rng, 500), sample(rng, 400, shift=0.8))
    assert [one.column for one in report.drifted] == ["normal"]
    assert report.columns[0].is_target
    assert report.is_alarm


def test_with_many_rows_a_tiny_shift_is_significant_and_no_drift() -> None:
    rng = np.random.default_rng(2)
    before = pa.table({"x": rng.normal(0, 1, 200_000)})
    after = pa.table({"x": rng.normal(0.03, 1, 200_000)})
    report = compare_tables(before, after, columns=["x"])
    (test,) = report.columns
    assert test.adjusted < 1e-6
    assert not report.is_alarm


def test_columns_that_come_go_or_change_their_type_raise_an_alarm() -> None:
    before = pa.table({"same": [1, 2], "gone": [1, 2], "typed": [1, 2], "wider": [1, 2]})
    after = pa.table({"same": [1, 2], "new": [1, 2], "typed": ["1", "2"], "wider": [1.0, None]})
    report = compare(before, after)
    assert report.changed_columns == ("gone", "new", "typed")
    assert report.is_alarm


def test_rows_of_a_growing_table_or_a_moving_window_are_compared_once() -> None:
    rng = np.random.default_rng(3)
    old, new = sample(rng, 300), sample(rng, 60, shift=2.0)
    grown, moved = pa.concat_tables([old, new]), pa.concat_tables([old.slice(100), new])
    assert [count_carried(old, one) for one in (grown, moved, new, old)] == [300, 200, 0, 300]
    report = compare(old, grown)
    assert (report.before, report.after, report.carried) == (300, 60, 300)
    assert [one.column for one in report.drifted] == ["normal"]
    assert compare(old, old.slice(100)).after == 200  # all of them were there before


def test_the_level_holds_for_a_whole_version_with_many_columns() -> None:
    """Alarms in 200 undrifted versions of five columns, by p-values alone."""
    rng = np.random.default_rng(4)
    old = [sample(rng, 300) for _ in range(10)]
    alarms = [
        compare(before, sample(rng, 200), level=0.1, distance=0.0).is_alarm
        for before in old
        for _ in range(20)
    ]
    # 0.1 plus three standard errors; without correction a third of them would be alarms
    assert 0.0 < np.mean(alarms) < 0.17


def test_p_values_are_corrected_by_holm() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([])).tolist() == []
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))
texts = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
tables = st.lists(st.tuples(numbers, texts, st.integers(0, 3)), min_size=1, max_size=60)


def table_of(rows: list[tuple[object, ...]]) -> pa.Table:
    """A table with a column of each kind."""
    kinds = {"x": pa.float64(), "city": pa.string(), "bought": pa.int64()}
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(list(one), kind) for one, kind in zip(columns, kinds.values(), strict=True)],
        names=list(kinds),
    )


@settings(deadline=None)
@given(rows=tables, seed=st.integers(0, 2**16))
def test_the_same_rows_in_any_order_never_raise_an_alarm(
    rows: list[tuple[object, ...]], seed: int
) -> None:
    before = table_of(rows)
    after = before.take(np.random.default_rng(seed).permutation(before.num_rows))
    report = compare(before, after, distance=0.0)
    assert not report.is_alarm
    assert all(one.p_value == pytest.approx(1.0) for one in report.columns)


@settings(deadline=None)
@given(old=tables, new=tables)
def test_the_order_of_columns_has_no_effect(
    old: list[tuple[object, ...]], new: list[tuple[object, ...]]
) -> None:
    before, after = table_of(old), table_of(new)
    turned = ["bought", "city", "x"]
    assert compare(before, after) == compare(before.select(turned), after.select(turned))
