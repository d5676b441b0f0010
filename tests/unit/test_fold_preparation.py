"""Folds of prepared data: each has a preparation of its own, and the same rows in every trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.data.prepared_data import part_path
from tunesvc.data.trial_data import TrialData, data_of_program
from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataManifest, DataStore, place_on_this_machine
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.preparation.splitting import fold_rows
from tunesvc.runtime.data_preparation import describe
from tunesvc.spec.sections.data_keys import Data, DataSplit

Prepare = Callable[..., DataManifest]


@pytest.fixture
def prepare_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Prepare 100 rows: `age` is their number."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    ages = np.arange(100, dtype=float)
    pd.DataFrame({"age": ages, "day": ages, "bought": ages % 2}).to_csv(
        tmp_path / "people.csv", index=False
    )

    def made(folds: int | None = 4, **data: Any) -> DataManifest:
        described = {
            "source": "people.csv",
            "target": "bought",
            "steps": [{"columns": ["age"], "apply": [{"name": "standardize"}]}],
            **data,
        }
        parsed = Data.model_validate_json(json.dumps(described))
        task = Preparation(parsed, tmp_path, DataStore.open(), lambda path: path, "", folds)
        return prepare(task, lambda text: None)

    return made


def read(manifest: DataManifest) -> TrialData:
    return TrialData(
        manifest.version, place_on_this_machine(manifest.prepared(DataStore.open().address))
    )


def test_each_fold_is_scaled_by_its_own_training_rows(prepare_folds: Prepare) -> None:
    """By time, rows 0 ... 79 are in windows of 16. Fold 0 trains on 0 ... 15: mean 7.5, deviation
    4.6098. All rows before the test part would have 39.5 and 23.0922."""
    manifest = prepare_folds(split={"time": "day", "test": 0.2})
    data = read(manifest)
    first = data.of_fold(0)
    assert first.train.X[0, 0] == pytest.approx(-7.5 / 4.6098, abs=1e-4)
    assert first.validation.X[0, 0] == pytest.approx((16 - 7.5) / 4.6098, abs=1e-4)
    sizes = [(len(data.of_fold(k).train), len(data.of_fold(k).validation)) for k in range(4)]
    assert sizes == [(16, 16), (32, 16), (48, 16), (64, 16)]
    for fold in range(4):
        X = data.of_fold(fold).train.X  # noqa: N806
        assert X.mean() == pytest.approx(0, abs=1e-12)
        assert X.std() == pytest.approx(1)
    assert {name: part.rows for name, part in manifest.whole_parts.items()} == {
        "train": 80,
        "test": 20,
    }
    assert (manifest.rows, manifest.folds) == (100, 4)


def test_every_row_is_validated_once_and_folds_stay(prepare_folds: Prepare) -> None:
    manifest = prepare_folds(steps=[])
    assert prepare_folds(steps=[]).created_at == manifest.created_at, "prepared once"
    data = read(manifest)
    ages = [data.of_fold(fold).validation.X[:, 0] for fold in range(4)]
    assert [len(one) for one in ages] == [20] * 4
    assert len(np.unique(np.concatenate(ages))) == 80
    for fold in range(4):
        assert not np.isin(ages[fold], data.of_fold(fold).train.X[:, 0]).any()
    assert data.of_fold(2) is data.of_fold(2)


def test_validation_rows_per_training_row_are_those_of_the_folds(prepare_folds: Prepare) -> None:
    by_time = prepare_folds(5, steps=[], split={"time": "day", "test": 0.1})
    assert by_time.validation_ratio == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))
    assert prepare_folds(5, steps=[]).validation_ratio == pytest.approx(1 / 4)
    split = {"test": 0.2, "validation": 0.2}
    assert prepare_folds(None, steps=[], split=split).validation_ratio == pytest.approx(1 / 3)


def test_another_number_of_folds_is_another_version(prepare_folds: Prepare) -> None:
    versions = {prepare_folds(folds).version for folds in (None, 4, 5)}
    assert len(versions) == 3
    assert next(describe(prepare_folds(5), with_columns=False)).endswith("2 features, 5 folds")


def test_trials_get_folds_and_neither_the_test_part_nor_all_rows(prepare_folds: Prepare) -> None:
    manifest = prepare_folds(2)
    named = manifest.prepared("store").parts
    assert sorted(named) == [
        *("fold-0/train", "fold-0/validation"),
        *("fold-1/train", "fold-1/validation"),
    ]


def test_a_program_finds_its_fold_under_the_usual_names(
    prepare_folds: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = prepare_folds(2)
    folder = place_on_this_machine(manifest.prepared(DataStore.open().address)) / "fold-1"
    assert part_path(folder, "validation").exists()
    monkeypatch.setenv("TUNE_DATA", str(folder))
    assert len(data_of_program().validation) == 40


def test_bad_folds_are_refused_with_a_remedy(prepare_folds: Prepare) -> None:
    with pytest.raises(DataError, match="90 folds of 80 rows are impossible: use fewer"):
        prepare_folds(90)
    with pytest.raises(DataError, match="50 folds need as many rows of a class, and there are 40"):
        prepare_folds(50, split={"stratify": True})


TABLE = pa.table(
    {
        "group": [number % 7 for number in range(70)],
        "day": [(number * 37) % 70 for number in range(70)],
        "label": ["a" if number % 10 else "b" for number in range(70)],
    }
)


def folds_of(count: int, **split: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(70)
    made = fold_rows(TABLE, rows, DataSplit(**split), "label", count)
    return [(one["train"], one["validation"]) for one in made]


def values(name: str, rows: np.ndarray) -> np.ndarray:
    return np.array(TABLE.column(name).to_pylist())[rows]


@given(st.integers(2, 7))
def test_groups_stay_together(count: int) -> None:
    for train, validation in folds_of(count, group="group"):
        assert not set(values("group", train)) & set(values("group", validation))
    with pytest.raises(DataError, match="groups in column 'group', and there are 7"):
        folds_of(8, group="group")


@given(st.integers(2, 7))
def test_classes_keep_their_proportions(count: int) -> None:
    shares = [(values("label", rows) == "b").sum() for _, rows in folds_of(count, stratify=True)]
    assert max(shares) - min(shares) <= 1


@given(st.integers(2, 20))
def test_windows_expand_and_never_look_ahead(count: int) -> None:
    before = 0
    for train, validation in folds_of(count, time="day"):
        assert values("day", train).max() < values("day", validation).min()
        assert len(train) > before
        before = len(train)
