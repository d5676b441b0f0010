"""Models in the artifact store: one name has the model of one study."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.errors import DataError
from tunesvc.models.model_store import ModelMetadata, ModelStore


def metadata(study_key: str, trial: int = 0) -> ModelMetadata:
    return ModelMetadata(
        study="shop",
        trial=trial,
        params={"C": 1.0},
        metric="roc_auc",
        goal="maximize",
        validation=0.8,
        test=0.7,
        scores={},
        data_version="v1",
        preparation_version="v1",
        trained_at="2026-11-30",
        trained_by="ann",
        file="model",
        tunesvc="0.1",
        study_key=study_key,
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    return ModelStore(ObjectStore.open(str(tmp_path / "store")))


def test_the_model_of_another_study_of_that_name_is_kept(store: ModelStore, tmp_path: Path) -> None:
    """Two databases with one artifact store may have a study of the same name."""
    folder = tmp_path / "model"
    folder.mkdir()
    folder.joinpath("model").write_text("first")
    store.put(folder, metadata("first"))
    store.put(folder, metadata("first", trial=1))
    with pytest.raises(DataError, match="another study named 'shop', trained at 2026.* by ann"):
        store.require_own("shop", "second")
    folder.joinpath("model").write_text("second")
    with pytest.raises(DataError, match="`tune apply shop --train --replace`"):
        store.put(folder, metadata("second"))
    found = store.find("shop")
    assert found is not None
    assert (found.study_key, found.trial) == ("first", 1)
    assert store.fetch("shop").joinpath("model").read_text() == "first"
    store.put(folder, metadata("second"), replace=True)
    assert store.fetch("shop").joinpath("model").read_text() == "second"
