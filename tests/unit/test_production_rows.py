"""Rows of production are prepared with the bits that trials got, in any process."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from tests.support.data_home import (
    ENCODE,
    Home,
    data_home,  # noqa: F401  # a fixture: its name is its use
    people,
)
from tunesvc.errors import DataError
from tunesvc.preparation.fitted_preparation import load_preparation


def test_production_gives_a_row_the_bits_of_the_batch_in_a_fresh_process(home: Home) -> None:
    """The process has no database, and an import of one would fail."""
    steps = [
        {"columns": ["age"], "apply": [{"name": "impute"}, {"name": "standardize"}]},
        {
            "columns": ["city"],
            "apply": [{"name": "impute", "strategy": "most_frequent"}, {"name": "encode"}],
        },
    ]
    rows = people(40)
    rows.loc[::7, "age"] = np.nan
    rows.loc[::9, "city"] = None
    home.write("people.csv", rows)
    manifest = home.prepare(source="people.csv", target="bought", steps=steps)
    assert not manifest.by_row
    home.store.name_study("people", manifest.version)
    program = """
import json, sys
sys.modules["sqlalchemy"] = sys.modules["psycopg2"] = sys.modules["ray"] = None
import pandas as pd, tunesvc
rows = pd.read_csv("people.csv")
prepared = tunesvc.load_preparation("people")
batch = prepared.transform(rows)
single = [prepared.transform(row).iloc[0] for row in rows.to_dict("records")]
assert list(batch.columns) == prepared.features
print(json.dumps([batch.to_numpy().tobytes().hex(), "".join(row.to_numpy().tobytes().hex() for row in single)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=home.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    batch, single = json.loads(done.stdout)
    assert batch == single
    train = home.read(manifest).train.X
    there = np.frombuffer(bytes.fromhex(batch)).reshape(len(rows), -1)
    assert {row.tobytes() for row in np.ascontiguousarray(train)} <= {
        row.tobytes() for row in there
    }


def test_a_transformer_that_mixes_rows_is_used_row_by_row(home: Home) -> None:
    """Products of matrices give other bits for a row than for a batch."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 40)), columns=[f"c{n}" for n in range(40)])
    home.write("wide.csv", table)
    home.names["m:Pca"] = PCA
    manifest = home.prepare(source="wide.csv", transformer="m:Pca")
    assert manifest.by_row
    assert any("rows are transformed one by one" in text for text in manifest.warnings)
    prepared = load_preparation(manifest.version)
    train = home.read(manifest).train.X
    batch = prepared.transform(pd.read_csv(home.folder / "wide.csv")).to_numpy()
    assert {row.tobytes() for row in np.ascontiguousarray(train)} <= {
        row.tobytes() for row in batch
    }


def test_rows_of_production_are_checked(home: Home) -> None:
    home.write("people.csv", people())
    manifest = home.prepare(source="people.csv", target="bought", steps=ENCODE)
    prepared = load_preparation(manifest.version[:6])
    assert prepared.transform({"age": 3, "city": "Paris", "other": 1}).shape == (1, 5)
    with pytest.raises(DataError, match="the rows lack city"):
        prepared.transform([{"age": 3}])
    with pytest.raises(DataError, match="column 'age' needs int64|column 'age' needs double"):
        prepared.transform({"age": "old", "city": "Rome"})
    with pytest.raises(DataError, match="rows are a str: give a mapping"):
        prepared.transform("Rome")
    with pytest.raises(DataError, match="no version 'none' of prepared data"):
        load_preparation("none")


def test_rows_of_production_have_the_types_of_the_source(home: Home) -> None:
    """Categories of numbers, moments of a zone, and decimals are no text."""
    table = people().assign(
        kind=pd.Categorical(np.arange(100) % 3),
        at=pd.date_range("2026-01-01", periods=100, tz="UTC"),
        price=[Decimal(row) / 8 for row in range(100)],
    )
    home.names["m:table"] = lambda: table
    manifest = home.prepare(source="m:table", target="bought", drop=["city"])
    prepared = load_preparation(manifest.version)
    train = home.read(manifest).train.pandas().drop(columns="bought")
    rows = table[table.age.isin(train.age)].drop(columns="bought")
    pd.testing.assert_frame_equal(prepared.transform(rows), train)
    row = {"age": 1.0, "kind": 2, "at": table["at"][0], "price": Decimal("0.5")}
    assert prepared.transform(row)["kind"].tolist() == [2.0]
    assert prepared.transform(row | {"price": 0.5})["price"].tolist() == [0.5]
    with pytest.raises(DataError, match="column 'price' needs decimal"):
        prepared.transform(row | {"price": "cheap"})
