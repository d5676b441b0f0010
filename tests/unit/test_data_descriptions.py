"""Prepared data are described, warned about and compared in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.support.data_home import (
    Home,
    data_home,  # noqa: F401  # a fixture: its name is its use
    people,
)
from tunesvc.errors import DataError
from tunesvc.preparation.data_difference import ChangedValue, compare
from tunesvc.runtime.data_preparation import describe


def test_columns_are_described_and_what_spoils_a_study_is_said(home: Home) -> None:
    rows = people().assign(flat=1, copy=lambda f: f.bought.map({0: "no", 1: "yes"}))
    rows["price"] = ["unknown" if row == 1 else str(row * 1.5) for row in range(100)]
    rows.loc[90:, "age"] = np.nan
    home.write("people.csv", pd.concat([rows, rows.head(60)]))
    manifest = home.prepare(source="people.csv", target="bought")
    said = "\n".join(manifest.warnings)
    assert "column 'flat' is constant (1): drop it" in said
    assert "column 'copy' has one value for each value of the target" in said
    assert "column 'price' is text, because" in said
    assert "rows of the validation part are in the training part, too" in said
    assert "gaps remain in age" in said
    age = next(one for one in manifest.columns if one["name"] == "age")
    assert age["count"] + age["missing"] == manifest.parts["train"].rows
    assert {"mean", "deviation", "min", "max", "distinct"} <= set(age)
    city = next(one for one in manifest.columns if one["name"] == "city")
    assert sum(count for _, count in city["top"]) == city["count"]


def test_the_first_columns_are_described_before_the_first_trial(home: Home) -> None:
    rows = people().assign(rate=np.inf, **{f"c{number}": 1.5 for number in range(20)})
    home.write("people.parquet", rows)
    manifest = home.prepare(source="people.parquet", target="bought")
    assert any("60 infinite values" in text for text in manifest.warnings)
    lines = list(describe(manifest, with_columns=True))
    assert "60 train, 20 validation, 20 test rows of 23 features" in lines[0]
    assert "  city (string): 60 values, 4 distinct, most often " in lines[2].replace("large_", "")
    assert "mean inf, deviation nan, inf to inf" in lines[4]
    assert lines[-1] == f"  and 12 columns more: `tune data show {manifest.version}`"
    assert list(describe(manifest, with_columns=False)) == lines[:1]


def test_a_clean_table_gives_no_warning(home: Home) -> None:
    rng = np.random.default_rng(0)
    home.write("clean.csv", pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"]))
    assert home.prepare(source="clean.csv", target="c").warnings == []


def test_a_difference_names_rows_and_columns(home: Home) -> None:
    first = people().assign(id=range(100))
    later = first.assign(note="x").drop(columns="city")
    later.loc[7, "age"] = 70.5
    later.loc[9, "bought"] = 0
    moved = pd.concat([first.tail(1), first.head(99)])
    shorter = first.drop(index=[3, 5])
    versions = []
    for number, frame in enumerate((first, later, moved, shorter)):
        home.write(f"{number}.csv", frame)
        versions.append(home.prepare(source=f"{number}.csv", target="bought"))
    found = compare(home.store, versions[0], versions[1])
    assert (found.added_columns, found.removed_columns) == (["note"], ["city"])
    assert found.changed_columns == {"age": 1, "bought": 1}
    assert found.changed_rows == [7, 9]
    assert found.changed[0] == ChangedValue(7, "age", 7.0, 70.5)
    assert compare(home.store, versions[0], versions[2]).is_empty
    assert compare(home.store, versions[0], versions[3]).removed_rows == [3, 5]
    assert compare(home.store, versions[3], versions[0], "id").added_rows == [3, 5]
    lists = [first.assign(near=[[0, last]] * 100) for last in (1, 2)]
    home.names |= {"m:first": lambda: lists[0], "m:last": lambda: lists[1]}
    nested = [home.prepare(source=f"m:{name}", drop=["near"]) for name in ("first", "last")]
    assert compare(home.store, *nested).changed_columns == {"near": 100}
    with pytest.raises(DataError, match="no column 'idd' in both versions, did you mean `id`"):
        compare(home.store, versions[0], versions[3], "idd")
    with pytest.raises(DataError, match="column 'bought' is no key"):
        compare(home.store, versions[0], versions[3], "bought")
