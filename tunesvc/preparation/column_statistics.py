"""Describes the columns of data before the first trial, and warns of what spoils a study.

Statistics are those of the training part: what they show may be acted upon. Runs in the
preparation's process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tunesvc.preparation.feature_frame import is_categorical, is_numeric, to_frame

_TOP = 5
_LEAK = 0.999
"""Correlation from which a feature counts as a copy of the target."""
_NUMBERS = 0.9
"""Share of a text column's values that are numbers, from which the others look wrong."""


def describe(table: pa.Table) -> list[dict[str, Any]]:
    """Return count, missing, distinct values, moments, range and top values of each column."""
    return [_described(name, table.column(name)) for name in table.column_names]


def find_warnings(
    table: pa.Table,
    parts: Mapping[str, np.ndarray],
    target: str | None,
    features: list[str],
) -> list[str]:
    """Return what in the data may spoil a study.

    Args:
        table: the rows as they were read.
        parts: numbers of the rows of each part.
        target: name of the target's column.
        features: names of the columns that are used.
    """
    train = table.take(parts["train"])
    return [
        *(text for name in features for text in _about_column(name, train.column(name))),
        *_leaks(train, target, features),
        *_duplicates(table.select(features), parts),
    ]


def _described(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    kind = column.type
    known = column.drop_null()
    described: dict[str, Any] = {
        "name": name,
        "type": str(kind),
        "count": len(known),
        "missing": column.null_count,
    }
    if is_numeric(kind):
        values = np.asarray(known.cast(pa.float64(), safe=False).to_numpy())
        gaps = np.isnan(values)
        described["missing"] += int(gaps.sum())
        described["count"] -= int(gaps.sum())
        values = values[~gaps]
        described["distinct"] = len(np.unique(values))
        if len(values):
            described |= _moments(values)
        if described["distinct"] > 20:
            return described
    elif not is_categorical(kind):
        return described
    counted = pc.value_counts(known).to_pylist()
    counted.sort(key=lambda one: (-one["counts"], str(one["values"])))
    described["distinct"] = len(counted)
    described["top"] = [[_plain(one["values"]), one["counts"]] for one in counted[:_TOP]]
    return described


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (int, float, str, bool)) else str(value)


def _moments(values: np.ndarray) -> dict[str, float | str]:
    with np.errstate(all="ignore"):
        numbers = {
            "mean": values.mean(),
            "deviation": values.std(),
            "min": values.min(),
            "max": values.max(),
        }
    return {name: _plain(float(number)) for name, number in numbers.items()}


def _about_column(name: str, column: pa.ChunkedArray) -> Iterator[str]:
    known = column.drop_null()
    if not len(known):
        yield f"column {name!r} has no value in the training part: drop it"
        return
    distinct = (
        len(pc.unique(known)) if is_numeric(column.type) or is_categorical(column.type) else 2
    )
    if distinct == 1 and not column.null_count:
        yield f"column {name!r} is constant ({_plain(known[0].as_py())}): drop it"
    if is_numeric(column.type) and pa.types.is_floating(column.type):
        infinite = int(np.isinf(known.to_numpy()).sum())
        if infinite:
            yield f"column {name!r} has {infinite} infinite values"
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        yield from _about_text(name, known)


def _about_text(name: str, known: pa.ChunkedArray) -> Iterator[str]:
    texts = known.to_pandas()
    numbers = pd.to_numeric(texts, errors="coerce")
    share = float(numbers.notna().mean())
    if share == 1:
        yield f"column {name!r} is text, and all its values are numbers"
    elif share >= _NUMBERS:
        wrong = texts[numbers.isna()].iloc[0]
        yield (
            f"column {name!r} is text, because {1 - share:.1%} of its values are no numbers, such "
            f"as {wrong!r}: make them gaps, so that it is a number"
        )
    elif texts.nunique() > 0.9 * len(texts) > 50:
        yield f"column {name!r} has another text in nearly every row: it cannot be learned from"


def _leaks(train: pa.Table, target: str | None, features: list[str]) -> Iterator[str]:
    if target is None:
        return
    wanted = train.column(target)
    is_number = is_numeric(wanted.type)
    codes = pd.factorize(wanted.to_pandas())[0]
    for name in features:
        column = train.column(name)
        if is_number and is_numeric(column.type):
            pair = to_frame(train.select([name, target])).dropna()
            if len(pair) > 2 and pair.nunique().min() > 1:
                likeness = abs(float(np.corrcoef(pair[name], pair[target])[0, 1]))
                if likeness >= _LEAK:
                    yield _leak(name, f"correlates with the target by {likeness:.4f}")
                    continue
        if is_numeric(column.type) or is_categorical(column.type):
            values = pd.factorize(column.to_pandas())[0]
            if _decides(values, codes):
                yield _leak(name, "has one value for each value of the target")


def _decides(values: np.ndarray, codes: np.ndarray) -> bool:
    """Return True if two columns of few values are the same but for their names."""
    pairs = len(np.unique(np.stack([values, codes]), axis=1).T)
    kinds = len(np.unique(codes))
    return 1 < kinds <= len(codes) / 4 and pairs == kinds == len(np.unique(values))


def _leak(name: str, why: str) -> str:
    return f"column {name!r} {why}: if it is not known when the target is to be predicted, drop it"


def _duplicates(features: pa.Table, parts: Mapping[str, np.ndarray]) -> Iterator[str]:
    if not features.num_columns:
        return
    hashes = row_hashes(features)
    train = np.unique(hashes[parts["train"]])
    for name, rows in parts.items():
        if name != "train":
            same = int(np.isin(hashes[rows], train).sum())
            if same:
                yield (
                    f"{same} of {len(rows)} rows of the {name} part are in the training part, too: "
                    "remove duplicates, or keep them together by `split: {group: COLUMN}`"
                )


def row_hashes(table: pa.Table) -> np.ndarray:
    """Return a hash of each row's values."""
    frame = to_frame(table)
    frame.columns = pd.RangeIndex(len(frame.columns))
    return pd.util.hash_pandas_object(frame, index=False, categorize=False).to_numpy()
