"""Data is prepared once per version, from the training part alone, and refused when it is bad."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tests.support.data_home import (
    ENCODE,
    STANDARDIZE,
    Home,
    data_home,  # noqa: F401  # a fixture: its name is its use
    people,
)
from tests.support.prepared_data import prepared_data
from tunesvc.data.part import Part
from tunesvc.data.prepared_data import node_folder, node_folders, part_path
from tunesvc.data.trial_data import TrialData, open_data
from tunesvc.errors import DataError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.entrypoint import load_object
from tunesvc.preparation.data_store import DataManifest, place_on_this_machine
from tunesvc.preparation.preparing import Preparation, prepare
from tunesvc.preparation.splitting import split_rows
from tunesvc.spec.sections.data_keys import Data, DataSplit
from tunesvc.spec.yaml.document import load
from tunesvc.trial import AssignedResources, Trial

Prepare = Callable[..., DataManifest]


def test_nothing_is_learned_from_other_parts_than_the_training_part(home: Home) -> None:
    """The last rows are the test part and the ones before validate. Of 0 ... 59 mean and deviation
    are 29.5 and 17.318; of all rows they would be 49.5 and 28.866, and row 0 -1.7148."""
    home.write("people.csv", people().assign(day=range(100)))
    data = home.read(
        home.prepare(source="people.csv", target="bought", split={"time": "day"}, steps=ENCODE)
    )
    age = data.train.X[:, data.train.features.index("age")]
    assert age[0] == pytest.approx(-29.5 / math.sqrt((60**2 - 1) / 12))
    assert age[0] != pytest.approx(-1.7148, abs=0.001)
    assert (age.mean(), age.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    assert data.validation.X[0, 0] == pytest.approx((60 - 29.5) / math.sqrt((60**2 - 1) / 12))


@pytest.mark.parametrize("first", [True, False])
def test_a_final_run_with_scorers_and_one_without_read_their_own_parts(
    home: Home, first: bool
) -> None:
    """The test part takes the place of the validation part only without scorers."""
    home.write("people.csv", people().assign(day=range(100)))
    manifest = home.prepare(source="people.csv", target="bought", split={"time": "day"})
    folders = {}
    for is_scored in (first, not first):
        prepared = manifest.prepared_for_final(home.store.address, is_scored=is_scored)
        folders[is_scored] = place_on_this_machine(prepared)
        data = TrialData(manifest.version, folders[is_scored])
        ages = data.validation.arrow.column("age").to_pylist()
        assert ages == list(range(60, 80) if is_scored else range(80, 100))
    assert len(set(folders.values())) == 2
    home.read(manifest)
    assert set(node_folders(manifest.version)) == {*folders.values(), node_folder(manifest.version)}


def test_versions_with_the_same_test_part_have_its_digest_in_common(home: Home) -> None:
    home.write("people.csv", people())

    def digest(folds: int | None = None, **data: Any) -> tuple[str, str]:
        described = {"source": "people.csv", "target": "bought", **data}
        parsed = Data.model_validate_json(json.dumps(described))
        task = Preparation(parsed, home.folder, home.store, home.load, "", folds)
        manifest = prepare(task, home.said.append)
        return manifest.version, manifest.test_rows

    same = [digest(), digest(drop=["city"]), digest(5), digest(split={"draw": 1})]
    assert len({version for version, _ in same}) == 4
    assert len({rows for _, rows in same}) == 1
    others = [digest(split={"seed": 1}), digest(split={"test": 0.3})]
    assert len({rows for _, rows in [*same, *others]}) == 3
    assert digest(split={"test": 0})[1] == ""


def test_the_matrix_is_a_read_only_view_of_the_file(home: Home) -> None:
    home.write("people.parquet", people())
    train = home.read(home.prepare(source="people.parquet", target="bought", steps=ENCODE)).train
    matrix, y = train
    assert matrix.shape == (60, 5)
    assert y.shape == (60,)
    assert not matrix.flags.owndata
    assert not matrix.flags.writeable
    columns = [train.arrow.column(name).to_numpy() for name in train.features]
    assert np.shares_memory(matrix, columns[0])
    assert np.shares_memory(matrix, columns[-1])
    np.testing.assert_array_equal(matrix, np.column_stack(columns))
    assert list(train.pandas().columns) == [*train.features, "bought"]


@pytest.mark.parametrize(("equal", "lengths"), [(True, [8] * 7), (False, [8, 9, 8, 9, 8, 9, 9])])
def test_shards_are_views_of_a_part_that_share_its_rows_out(
    home: Home, equal: bool, lengths: list[int]
) -> None:
    home.write("people.parquet", people())
    train = home.read(home.prepare(source="people.parquet", target="bought", steps=ENCODE)).train
    shards = [train.shard(rank, 7, equal=equal) for rank in range(7)]
    assert [len(shard) for shard in shards] == lengths
    assert all(np.shares_memory(shard.X, train.X) for shard in shards)
    np.testing.assert_array_equal(np.vstack([shard.X for shard in shards]), train.X[: sum(lengths)])
    np.testing.assert_array_equal(np.hstack([shard.y for shard in shards]), train.y[: sum(lengths)])
    for shard in shards:
        frame = shard.pandas()
        np.testing.assert_array_equal(frame[shard.features].to_numpy(), shard.X)
        assert not shard.X.flags.writeable
    assert len(shards[0].shard(1, 2)) == 4
    with pytest.raises(DataError, match="ranks of 7 workers are 0 to 6"):
        train.shard(7, 7)
    with pytest.raises(DataError, match="60 rows cannot be shared by 61 workers"):
        train.shard(0, 61)


def test_the_test_part_is_stored_and_given_to_no_trial(home: Home) -> None:
    home.write("people.csv", people())
    manifest = home.prepare(source="people.csv", target="bought", steps=ENCODE)
    data = home.read(manifest)
    assert manifest.parts["test"].rows == 20
    assert home.store.files.exists(manifest.parts["test"].digest)
    assert set(manifest.prepared("").parts) == {"train", "validation"}
    assert sorted(path.name for path in node_folder(manifest.version).iterdir()) == [
        "train.arrow",
        "validation.arrow",
    ]
    with pytest.raises(DataError, match="no trial gets the test part"):
        _ = data.test


def test_a_version_is_that_of_content_settings_and_code(home: Home) -> None:
    home.write("people.csv", people())
    home.write("same.csv", people())
    home.write("other.csv", people().assign(age=1.5))
    settings = {"target": "bought", "steps": ENCODE}
    first = home.prepare(source="people.csv", **settings)
    assert home.prepare(source="same.csv", **settings).version == first.version
    others = {
        home.prepare(source="other.csv", **settings).version,
        home.prepare(source="people.csv", target="bought").version,
        home.prepare(source="people.csv", split={"seed": 1}, **settings).version,
        home.prepare("changed", source="people.csv", **settings).version,
    }
    assert len({first.version, *others}) == 5


def test_several_studies_at_once_prepare_once(home: Home) -> None:
    home.write("people.csv", people())
    fits = []
    begun = threading.Event()

    class Counted(StandardScaler):
        def fit(self, rows: Any, y: Any = None) -> Any:
            fits.append(len(rows))
            begun.wait(0.2)
            return super().fit(rows[["age"]], y)

        def transform(self, rows: Any) -> Any:
            return super().transform(rows[["age"]])

        def __reduce__(self) -> Any:
            return StandardScaler, ()

    home.names["prep:Counted"] = Counted
    found: list[str] = []

    def run() -> None:
        manifest = home.prepare(source="people.csv", target="bought", transformer="prep:Counted")
        found.append(manifest.version)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fits == [60]
    assert len(found) == 3
    assert len(set(found)) == 1
    assert "waiting for another study that prepares this data" in home.said


def test_a_function_gives_a_frame_or_matrix_and_target(home: Home) -> None:
    pairs = np.arange(40.0).reshape(20, 2), np.arange(20)
    home.names |= {"m:pair": lambda: pairs, "m:frame": lambda: people(20)}
    pair = home.read(home.prepare(source="m:pair"))
    assert (pair.train.features, pair.train.target) == (["x0", "x1"], "target")
    frame = home.prepare(source="m:frame", target="bought", drop=["city"])
    assert frame.features == ["age"]
    assert frame.version == home.prepare(source="m:frame", target="bought", drop=["city"]).version


def test_a_group_stays_in_one_part_and_classes_keep_their_proportion(home: Home) -> None:
    home.write("people.csv", people().assign(family=np.arange(100) // 5))
    grouped = home.prepare(source="people.csv", target="bought", split={"group": "family"})
    assert {name: part.rows for name, part in grouped.parts.items()} == {
        "train": 60,
        "validation": 20,
        "test": 20,
    }
    data = home.read(grouped)
    families = [set(part.arrow["age"].to_numpy() // 5) for part in (data.train, data.validation)]
    assert not families[0] & families[1]
    assert "family" not in grouped.features
    rare = people().assign(bought=(np.arange(100) < 10).astype(int))
    home.write("rare.csv", rare)
    fair = home.read(home.prepare(source="rare.csv", target="bought", split={"stratify": True}))
    assert (fair.train.y.sum(), fair.validation.y.sum()) == (6, 2)


@pytest.mark.parametrize("split", [{}, {"group": "city"}, {"stratify": True}])
def test_a_draw_has_other_parts_and_the_same_test_part(split: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"city": rng.integers(0, 60, 400), "bought": rng.integers(0, 2, 400)})
    draws = [
        split_rows(table, DataSplit.model_validate({**split, "draw": draw}), "bought")
        for draw in (0, 1, 2)
    ]
    first, *others = draws
    assert all(np.array_equal(first["test"], other["test"]) for other in others)
    assert len({tuple(one["validation"]) for one in draws}) == 3
    for parts in draws:
        assert sorted(np.concatenate(list(parts.values()))) == list(range(400))


def test_data_of_another_version_is_refused(home: Home) -> None:
    home.write("people.csv", people())
    manifest = home.prepare(source="people.csv", target="bought", steps=ENCODE)
    folder = place_on_this_machine(manifest.prepared(home.store.address))
    with pytest.raises(
        DataError, match=f"needs data of version abc.*has version {manifest.version}"
    ):
        Part.open(part_path(folder, "train"), "abc")
    with pytest.raises(DataError, match="was removed from this machine"):
        Part.open(part_path(folder, "test"), manifest.version)
    with pytest.raises(DataError, match="the study has no data"):
        open_data(None)


def test_text_that_is_not_encoded_is_no_matrix(home: Home) -> None:
    home.write("people.csv", people())
    train = home.read(home.prepare(source="people.csv", target="bought")).train
    assert set(train.pandas()["city"]) == {"Rome", "Oslo", "Bonn", "Kyiv"}
    with pytest.raises(DataError, match="column 'city' is .*string.*: encode it"):
        _ = train.X


def broken() -> None:
    raise ValueError("the disk is full")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"source": "none.csv"}, "there is no file 'none.csv' in .*study"),
    "no match": ({"source": "*.tsv"}, "there is no file"),
    "kind": ({"source": "notes.txt"}, "is of no kind that is read"),
    "empty": ({"source": "empty.csv"}, "empty.csv cannot be read: Empty CSV file"),
    "no rows": ({"source": "header.csv"}, "header.csv has no rows"),
    "columns differ": ({"source": "part-*.csv"}, "part-2.csv has other columns.*city is missing"),
    "type changes": ({"source": "late.csv"}, "conversion error.*Later rows have another type"),
    "no target": ({"source": "people.csv", "target": "buoght"}, "no column 'buoght'.*`bought`"),
    "target gaps": (
        {"source": "gaps.csv", "target": "bought"},
        "has gaps, 2 of 100, first in row 3",
    ),
    "few rows": ({"source": "few.csv", "target": "bought"}, "the (validation|test) part is empty"),
    "rare class": (
        {"source": "one.csv", "target": "bought", "split": {"stratify": True}},
        "stratify: true}` is impossible",
    ),
    "text": (
        {
            "source": "people.csv",
            "steps": [{"columns": ["city"], "apply": [{"name": "standardize"}]}],
        },
        "`standardize` needs numbers, and column 'city' is string",
    ),
    "unknown column": (
        {"source": "people.csv", "steps": [{"columns": ["agee"], "apply": [{"name": "impute"}]}]},
        "no feature 'agee'.*`age`",
    ),
    "twice": ({"source": "people.csv", "steps": STANDARDIZE * 2}, "both have column 'age'"),
    "options": (
        {"source": "people.csv", "steps": [{"apply": [{"name": "impute", "way": 1}]}]},
        "'impute' refuses its options.*way",
    ),
    "raises": ({"source": "m:broken"}, "raised ValueError: the disk is full"),
    "returns": ({"source": "m:number"}, "returned a int: return a DataFrame"),
    "lengths": ({"source": "m:lengths"}, "Length of values .3. does not match"),
    "shape": ({"source": "m:shape"}, "Expected a 1D array"),
    "nested": ({"source": "m:nested"}, "column 'near' of m:nested is list.*: drop it"),
    "no feature": (
        {"source": "people.csv", "target": "bought", "drop": ["age", "city"]},
        "people.csv has no column left to learn from",
    ),
    "no transformer": ({"source": "people.csv", "transformer": "m:number"}, "is no transformer"),
    "lambda": ({"source": "numbers.csv", "transformer": "m:local"}, "cannot be stored"),
    "group gaps": ({"source": "gaps.csv", "split": {"group": "bought"}}, "has 2 gaps"),
    "bad URL": ({"source": "nowhere://bucket/x.csv"}, "cannot be opened: Protocol not known"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_a_clear_error(home: Home, case: str) -> None:
    data, message = BAD[case]
    home.write("people.csv", people())
    home.write("numbers.csv", people().drop(columns="city"))
    home.write("few.csv", people(4).head(2))
    home.write("one.csv", people().assign(bought=(np.arange(100) < 1).astype(int)))
    home.write("gaps.csv", people().assign(bought=lambda f: f.bought.where(~f.age.isin([3, 9]))))
    home.write("part-1.csv", people())
    home.write("part-2.csv", people().drop(columns="city"))
    (home.folder / "notes.txt").write_text("x")
    (home.folder / "empty.csv").write_text("")
    (home.folder / "header.csv").write_text("age,city\n")
    (home.folder / "late.csv").write_text("age\n" + "1\n" * 600_000 + "old\n")
    local = FunctionTransformer(lambda rows: rows)
    home.names |= {"m:broken": broken, "m:number": lambda: 3, "m:local": local}
    home.names |= {
        "m:lengths": lambda: (np.zeros((4, 2)), np.zeros(3)),
        "m:shape": lambda: (np.zeros((4, 2)), np.zeros((4, 2))),
        "m:nested": lambda: people().assign(near=[[1, 2]] * 100),
    }
    with pytest.raises(DataError, match=message):
        home.prepare(**data)
    assert list(home.store.list()) == []


def test_a_function_that_is_not_there_has_not_raised(home: Home) -> None:
    (home.folder / "shop.py").write_text("")
    with pytest.raises(EntrypointError, match="shop.py has no 'visits'"):
        home.prepare(source="shop.py:visits")


def test_what_does_not_fit_into_memory_is_refused_while_it_is_read(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write("large.csv", pd.DataFrame(np.random.default_rng(0).normal(size=(60_000, 4))))
    monkeypatch.setenv("TUNE_DATA_MEMORY", "2e6")
    with pytest.raises(DataError, match=r"too large.*\d+ kB were read.*2 MB of memory are free"):
        home.prepare(source="large.csv")


def test_empty_text_is_a_gap_and_na_is_a_country(home: Home) -> None:
    home.write("people.csv", people().assign(land=["NA", None, "IT", "FI"] * 25))
    manifest = home.prepare(source="people.csv", target="bought")
    land = next(one for one in manifest.columns if one["name"] == "land")
    assert land["missing"] > 0
    assert "NA" in dict(land["top"])


def test_the_snippets_of_the_guide_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    studies = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (objective,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (home.folder / "shop_study.py").write_text(objective)
    (home.folder / "study.yaml").write_text(studies[0])
    rng = np.random.default_rng(0)
    table = people().assign(minutes=rng.gamma(2, 5, 100))
    table["bought"] = (table.age > 50).astype(int)
    home.write("shop.csv", table)
    document = load(home.folder / "study.yaml")
    data = prepared_data(document.spec, home.folder)
    trial = Trial(resources=AssignedResources(open_data=lambda: data))
    monkeypatch.syspath_prepend(str(home.folder))
    train = load_object("shop_study.py:train", home.folder, "entrypoint")
    assert train(C=1.0, trial=trial) < 0.2
    others = [study for study in studies[1:] if study.startswith("data:")]
    others = [study for study in others if "feast:" not in study]  # `frameworks/test_feast`
    assert others
    for study in others:
        rest = studies[0].split("data:")[0]
        (home.folder / "study.yaml").write_text(rest + study)
        prepared_data(load(home.folder / "study.yaml").spec, home.folder)


def test_a_removed_version_leaves_the_files_that_others_have(home: Home) -> None:
    home.write("people.csv", people())
    first = home.prepare(source="people.csv", target="bought", steps=ENCODE)
    second = home.prepare(source="people.csv", target="bought", steps=STANDARDIZE)
    assert first.raw == second.raw
    home.store.remove(first)
    assert [one.version for one in home.store.list()] == [second.version]
    assert home.store.files.exists(second.raw.digest)
    assert not home.store.files.exists(first.preparation.digest)
    assert home.prepare(source="people.csv", target="bought", steps=ENCODE).version == first.version
