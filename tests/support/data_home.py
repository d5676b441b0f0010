"""The folder of a study with data, and small tables for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tunesvc.data.trial_data import TrialData
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.preparation.data_store import DataManifest, DataStore, place_on_this_machine
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.spec.sections.data_keys import Data


class Home:
    """A study's folder and the artifact store of its user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {}
        self.said: list[str] = []

    @property
    def store(self) -> DataStore:
        return DataStore.open()

    def write(self, name: str, frame: pd.DataFrame) -> Path:
        path = self.folder / name
        writer = frame.to_csv if name.endswith(".csv") else frame.to_parquet
        writer(path, index=False)
        return path

    def load(self, import_path: str) -> Any:
        if import_path in self.names:
            return self.names[import_path]
        return load_object(import_path, self.folder, import_path)

    def prepare(self, code: str = "", **data: Any) -> DataManifest:
        parsed = Data.model_validate_json(json.dumps(data))
        task = Preparation(parsed, self.folder, self.store, self.load, code)
        return prepare(task, self.said.append)

    def read(self, manifest: DataManifest) -> TrialData:
        prepared = manifest.prepared(self.store.address)
        return TrialData(manifest.version, place_on_this_machine(prepared))


def people(rows: int = 100) -> pd.DataFrame:
    """Rows in which the mean of `age` drifts, so that every part has another."""
    return pd.DataFrame(
        {
            "age": np.arange(rows, dtype=float),
            "city": ["Rome", "Oslo", "Bonn", "Kyiv"] * (rows // 4),
            "bought": np.arange(rows) % 2,
        }
    )


STANDARDIZE = [{"columns": ["age"], "apply": [{"name": "standardize"}]}]


ENCODE = [*STANDARDIZE, {"columns": ["city"], "apply": [{"name": "encode"}]}]


@pytest.fixture(name="home")
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return the folder of a study with an artifact store of its own."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    folder = tmp_path / "study"
    folder.mkdir()
    return Home(folder)
