"""Parts and folds by time. Those at random, by class and by group are tried in their callers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from tunesvc.errors import DataError
from tunesvc.preparation.splitting import fold_rows, split_rows
from tunesvc.spec.sections.data_keys import DataSplit

BY_DAY = DataSplit(time="day", validation=0.3, test=0.2)
DAYS = st.lists(st.integers(0, 12), min_size=12, max_size=60)


@given(DAYS)
def test_rows_of_one_moment_are_in_one_part(days: list[int]) -> None:
    with suppress(DataError):  # too few moments
        parts = split_rows(pa.table({"day": days}), BY_DAY, None)
        assert_in_order(days, parts, "train", "validation")
        assert_in_order(days, parts, "validation", "test")
        assert len(parts["test"]) >= round(0.2 * len(days))


@given(DAYS, st.integers(2, 5))
def test_rows_of_one_moment_are_on_one_side_of_each_fold(days: list[int], count: int) -> None:
    with suppress(DataError):  # too few moments
        for fold in fold_rows(pa.table({"day": days}), np.arange(len(days)), BY_DAY, None, count):
            assert_in_order(days, fold, "train", "validation")


@pytest.mark.parametrize("count", [2, 5])
def test_folds_of_distinct_times_are_those_of_scikit_learn(count: int) -> None:
    days, rows = np.random.default_rng(0).permutation(100)[:53], np.arange(53)
    ours = fold_rows(pa.table({"day": days}), rows, BY_DAY, None, count)
    expected = TimeSeriesSplit(count).split(rows)
    for fold, (train, validation) in zip(ours, expected, strict=True):
        assert list(fold["train"]) == sorted(np.argsort(days)[train])
        assert list(fold["validation"]) == sorted(np.argsort(days)[validation])


@pytest.mark.parametrize("way", [{}, {"group": "shop"}, {"stratify": True}])
def test_a_draw_has_other_folds_and_each_row_is_validated_once(way: Mapping[str, object]) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"shop": rng.integers(0, 40, 400), "bought": rng.integers(0, 2, 400)})
    shops, divisions = table.column("shop").to_numpy(), set()
    for draw in (0, 1, 2):
        split = DataSplit.model_validate({**way, "draw": draw})
        folds = list(fold_rows(table, np.arange(400), split, "bought", 5))
        assert sorted(np.concatenate([fold["validation"] for fold in folds])) == list(range(400))
        divisions.add(frozenset(tuple(fold["validation"]) for fold in folds))
        for fold in folds:
            assert sorted([*fold["train"], *fold["validation"]]) == list(range(400))
            if "group" in way:
                assert not set(shops[fold["train"]]) & set(shops[fold["validation"]])
    assert len(divisions) == 3


def test_folds_by_time_are_the_same_in_all_draws() -> None:
    table, rows = pa.table({"day": range(60)}), np.arange(60)
    folds = [
        [list(fold["validation"]) for fold in fold_rows(table, rows, split, None, 5)]
        for split in (BY_DAY, BY_DAY.model_copy(update={"draw": 1}))
    ]
    assert folds[0] == folds[1]


def test_too_few_moments_are_named() -> None:
    table = pa.table({"day": [1] * 5 + [2] * 20})
    with pytest.raises(DataError, match="the train part is empty"):
        split_rows(table, BY_DAY, None)
    with pytest.raises(DataError, match="column 'day' has 2 moments, and rows of one stay"):
        list(fold_rows(table, np.arange(25), BY_DAY, None, 3))


def assert_in_order(
    days: list[int], parts: Mapping[str, np.ndarray], earlier: str, later: str
) -> None:
    assert max(days[row] for row in parts[earlier]) < min(days[row] for row in parts[later])
