"""Features of a real Feast repository with the local provider."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import tunesvc
from tests.support.prepared_data import prepared_data
from tunesvc.data.trial_data import TrialData
from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataStore
from tunesvc.spec.sections.data_keys import Data
from tunesvc.spec.yaml.document import load

feast = pytest.importorskip("feast")
START = pd.Timestamp("2026-01-01", tz="UTC")
ROWS = 40


def test_each_row_has_the_features_of_its_time_and_none_of_later(repository: Path) -> None:
    data = prepare(repository, {"features": "shop_v1"})
    frame = pd.concat([data.train.pandas(), data.validation.pandas()])
    assert data.train.features == ["spent", "visits", "minutes"]
    # Entity k has k visits from the first day on, and 100 more from the tenth.
    assert sorted(frame.visits) == [float(k) for k in range(ROWS)]


def test_features_may_be_listed_and_the_target_is_a_column_of_the_entities(
    repository: Path,
) -> None:
    data = prepare(repository, {"features": ["activity:visits"]})
    assert data.train.features == ["spent", "visits"]
    assert np.array_equal(data.train.y, data.train.pandas().visits % 2)


def test_the_same_features_are_the_same_version_and_others_another(repository: Path) -> None:
    first = prepare(repository, {"features": "shop_v1"})
    assert prepare(repository, {"features": "shop_v1"}).version == first.version
    write_activity(repository, minutes=9.0)
    assert prepare(repository, {"features": "shop_v1"}).version != first.version


def test_rows_may_be_split_by_their_time(repository: Path) -> None:
    split = {"time": "event_timestamp", "test": 0}
    data = prepare(repository, {"features": "shop_v1"}, split=split)
    assert data.train.pandas().visits.max() < data.validation.pandas().visits.min()


def test_a_row_of_the_online_store_is_prepared_as_in_training(repository: Path) -> None:
    data = prepare(repository, {"features": "shop_v1"}, named="shop")
    store = feast.FeatureStore(str(repository / "feature_repo"))
    store.materialize(START - timedelta(days=1), START + timedelta(days=5))
    (visits,) = data.train.pandas().visits[:1]
    online = store.get_online_features(
        features=store.get_feature_service("shop_v1"), entity_rows=[{"customer": int(visits)}]
    ).to_dict()
    row = {name: values[0] for name, values in online.items()} | {"spent": 2.0 * visits}
    prepared = tunesvc.load_preparation("shop").transform(row)
    assert prepared.to_numpy().tobytes() == data.train.X[:1].copy().tobytes()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"feast": "elsewhere"}, "has no `feature_store.yaml`: name the folder"),
        ({"features": "shop_v2"}, "Feature service shop_v2 does not exist"),
        ({"features": ["activity:clicks"]}, "Feature clicks not found"),
        ({"entities": "untimed.csv"}, "has no column 'event_timestamp'"),
        ({"entities": "nothing.csv"}, "there is no file 'nothing.csv'"),
        ({"entities": "anonymous.csv"}, "anonymous.csv has no column 'customer', a key of these"),
    ],
)
def test_what_cannot_be_served_is_named(
    repository: Path, source: dict[str, Any], text: str
) -> None:
    entities = pd.read_parquet(repository / "purchases.parquet")
    entities.drop(columns="event_timestamp").to_csv(repository / "untimed.csv", index=False)
    entities.drop(columns="customer").to_csv(repository / "anonymous.csv", index=False)
    with pytest.raises(DataError, match=text):
        prepare(repository, {"features": "shop_v1"} | source)


def test_the_study_of_the_guide_is_prepared(repository: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(data:\n  source:\n    feast:.*?)```", page, re.DOTALL)
    data = yaml.safe_load(snippet)["data"]
    assert prepare(repository, data["source"]).train.features == ["spent", "visits", "minutes"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with entities, and a repository in `features`."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    folder = tmp_path / "study"
    (folder / "feature_repo").mkdir(parents=True)
    settings = {
        "project": "shop",
        "provider": "local",
        "registry": "registry.db",
        "online_store": {"type": "sqlite", "path": "online.db"},
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_repo" / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    write_activity(folder, minutes=3.0)
    customers = range(ROWS)
    pd.DataFrame(
        {
            "customer": customers,
            "event_timestamp": [START + timedelta(hours=k) for k in customers],
            "spent": [2.0 * k for k in customers],
            "bought": [k % 2 for k in customers],
        }
    ).to_parquet(folder / "purchases.parquet")
    define_features(folder / "feature_repo")
    return folder


def write_activity(folder: Path, *, minutes: float) -> None:
    """Write the table behind the features: a row of before the study's, and one of after."""
    rows = [
        {"customer": k, "event_timestamp": START + timedelta(days=day), "visits": k + more}
        for k in range(ROWS)
        for day, more in ((-1, 0), (10, 100))
    ]
    frame = pd.DataFrame(rows).assign(minutes=minutes)
    frame.to_parquet(folder / "feature_repo" / "activity.parquet")


def define_features(folder: Path) -> None:
    from feast.types import Float64, Int64

    customer = feast.Entity(
        name="customer", join_keys=["customer"], value_type=feast.ValueType.INT64
    )
    activity = feast.FeatureView(
        name="activity",
        entities=[customer],
        ttl=timedelta(days=30),
        schema=[
            feast.Field(name="visits", dtype=Int64),
            feast.Field(name="minutes", dtype=Float64),
        ],
        source=feast.FileSource(
            path=str(folder.resolve() / "activity.parquet"), timestamp_field="event_timestamp"
        ),
    )
    service = feast.FeatureService(name="shop_v1", features=[activity])
    feast.FeatureStore(str(folder)).apply([customer, activity, service])


def prepare(
    folder: Path,
    source: dict[str, Any],
    *,
    split: dict[str, Any] | None = None,
    named: str | None = None,
) -> TrialData:
    """Prepare the data of a study with this source."""
    written = {
        "name": named or "shop",
        "command": ["python", "train.py"],
        "metric": "loss",
        "parameters": {"C": {"min": 0.1, "max": 1.0}},
        "budget": 1,
        "data": {
            "source": {"feast": "feature_repo", "entities": "purchases.parquet", **source},
            "target": "bought",
            "split": split or {"test": 0},
        },
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(written))
    data = prepared_data(load(file).spec, folder)
    if named is not None:
        DataStore.open().name_study(named, data.version)
    return data


def test_data_says_where_it_is_from() -> None:
    source = {"feast": "feature_repo", "entities": "e.csv", "features": ["a:b", "a:c"]}
    assert str(Data.model_validate({"source": source}).source) == "a:b, a:c of feature_repo"
