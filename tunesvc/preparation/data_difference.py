"""Differences between two versions of prepared data: columns, rows, and values in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.util.suggestions import suggest


@dataclass(frozen=True, slots=True)
class ChangedValue:
    """A value that is another one in the later version."""

    row: Any
    """Number of the row, from 0, or its key."""
    column: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class DataDifference:
    """The differences between two versions."""

    settings: Sequence[str]
    """Keys of `data` that differ, `code` and `scikit-learn` among them."""
    added_columns: Sequence[str]
    removed_columns: Sequence[str]
    retyped_columns: Mapping[str, tuple[str, str]]
    """Columns with other types, before and after."""
    added_rows: Sequence[Any]
    """Numbers of rows, from 0, or keys, that only the later version has."""
    removed_rows: Sequence[Any]
    """Columns that only the earlier version has."""
    changed: Sequence[ChangedValue]

    @property
    def changed_columns(self) -> dict[str, int]:
        """Number of changed values by column."""
        counts: dict[str, int] = {}
        for value in self.changed:
            counts[value.column] = counts.get(value.column, 0) + 1
        return counts

    @property
    def changed_rows(self) -> list[Any]:
        """Rows with a changed value."""
        return list(dict.fromkeys(value.row for value in self.changed))

    @property
    def is_empty(self) -> bool:
        """True if nothing differs."""
        columns = self.added_columns or self.removed_columns or self.retyped_columns
        rows = self.added_rows or self.removed_rows or self.changed
        return not (self.settings or columns or rows)


def compare(
    store: DataStore,
    before: DataManifest,
    after: DataManifest,
    key: str | None = None,
) -> DataDifference:
    """Compare two versions.

    Rows are the same if they have the same key. Without one, equal rows are paired first, wherever
    they are; then the rest, in order, if both versions have as many rows.

    Raises:
        DataError: a version lacks the key, or has it twice.
    """
    old, new = _rows(store, before), _rows(store, after)
    common = [name for name in old.columns if name in new.columns]
    pairs, removed, added = _paired(old, new, common, key)
    types = {name: (str(old[name].dtype), str(new[name].dtype)) for name in common}
    return DataDifference(
        settings=_settings(before, after),
        added_columns=[name for name in new.columns if name not in common],
        removed_columns=[name for name in old.columns if name not in common],
        retyped_columns={name: both for name, both in types.items() if both[0] != both[1]},
        added_rows=_named(new, added, key),
        removed_rows=_named(old, removed, key),
        changed=_changed(old, new, common, pairs, key),
    )


def _rows(store: DataStore, manifest: DataManifest) -> pd.DataFrame:
    """Return all rows of a version as they were read."""
    with TemporaryDirectory(prefix="tunesvc-data-") as folder:
        path = Path(folder, "raw.parquet")
        store.files.get(manifest.raw.digest, path)
        frame = pd.read_parquet(path)
        nested = [one.name for one in pq.read_schema(path) if pa.types.is_nested(one.type)]
    return frame.assign(**{name: frame[name].astype(str) for name in nested})


def _settings(before: DataManifest, after: DataManifest) -> list[str]:
    old = {**before.settings, "code": before.code, "scikit-learn": before.scikit_learn}
    new = {**after.settings, "code": after.code, "scikit-learn": after.scikit_learn}
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [name for name in differing if name != "source"]  # which is not a part of a version


Pairs = list[tuple[int, int]]


def _paired(
    old: pd.DataFrame,
    new: pd.DataFrame,
    common: list[str],
    key: str | None,
) -> tuple[Pairs, list[int], list[int]]:
    """Return pairs of positions that may differ, and those of removed and added rows."""
    if key is not None:
        return _paired_by_key(old, new, key)
    where: dict[int, list[int]] = {}
    for position, value in enumerate(_hashes(old, common)):
        where.setdefault(value, []).append(position)
    added = []
    for position, value in enumerate(_hashes(new, common)):
        if where.get(value):
            where[value].pop(0)
        else:
            added.append(position)
    removed = sorted(position for positions in where.values() for position in positions)
    if len(old) != len(new):
        return [], removed, added
    return list(zip(removed, added, strict=True)), [], []


def _paired_by_key(
    old: pd.DataFrame,
    new: pd.DataFrame,
    key: str,
) -> tuple[Pairs, list[int], list[int]]:
    places = []
    for frame in (old, new):
        if key not in frame.columns:
            hint = suggest(key, frame.columns)
            raise DataError(f"there is no column {key!r} in both versions{hint}")
        if frame[key].duplicated().any():
            raise DataError(f"column {key!r} is no key: {frame[key].duplicated().sum()} are twice")
        places.append({value: position for position, value in enumerate(frame[key])})
    before, after = places
    pairs = [(place, after[value]) for value, place in before.items() if value in after]
    removed = [place for value, place in before.items() if value not in after]
    added = [place for value, place in after.items() if value not in before]
    return pairs, removed, added


def _hashes(frame: pd.DataFrame, columns: list[str]) -> list[int]:
    texts = frame[columns].astype(str)
    return [int(one) for one in pd.util.hash_pandas_object(texts, index=False)]


def _named(frame: pd.DataFrame, positions: list[int], key: str | None) -> list[Any]:
    return positions if key is None else [frame[key].iloc[position] for position in positions]


def _changed(
    old: pd.DataFrame,
    new: pd.DataFrame,
    common: list[str],
    pairs: Pairs,
    key: str | None,
) -> list[ChangedValue]:
    changed = []
    for name in common:
        left, right = old[name].tolist(), new[name].tolist()
        for before, after in pairs:
            if left[before] != right[after] and not (
                _is_gap(left[before]) and _is_gap(right[after])
            ):
                row = after if key is None else new[key].iloc[after]
                changed.append(ChangedValue(row, name, left[before], right[after]))
    return changed


def _is_gap(value: Any) -> bool:
    return bool(pd.isna(value))
