"""Splits rows into parts, the same ones whenever rows and settings are the same.

Runs in the preparation's process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    StratifiedKFold,
    train_test_split,
)

from tunesvc.data.prepared_data import TEST
from tunesvc.errors import DataError
from tunesvc.spec.sections.data_keys import DataSplit

Rows = np.ndarray


def split_rows(
    table: pa.Table, split: DataSplit, target: str | None, *, has_folds: bool = False
) -> Mapping[str, Rows]:
    """Return the numbers of the rows of each part, in ascending order.

    With folds, which take the place of the validation part, there is none.

    Raises:
        DataError: a part would be empty, or a class is too rare to be in each.
    """
    rows = np.arange(table.num_rows)
    shares = {TEST: split.test, "validation": 0.0 if has_folds else split.validation}
    if split.time is not None:
        parts = _by_time(table, split.time, shares)
    elif split.group is not None:
        parts = _by_group(table, split.group, shares, split)
    else:
        labels = None
        if split.stratify and target is not None:
            labels = table.column(target).combine_chunks().dictionary_encode().indices.to_numpy()
        parts = _at_random(rows, labels, shares, split)
    if not split.test:
        del parts[TEST]
    if has_folds:
        del parts["validation"]
    for name, part in parts.items():
        if not len(part):
            raise DataError(
                f"the {name} part is empty: {table.num_rows} rows are too few for these shares. "
                "Change `data: {split: ...}`, or use more data"
            )
    return {name: np.sort(parts[name]) for name in ("train", "validation", TEST) if name in parts}


def fold_rows(
    table: pa.Table, rows: Rows, split: DataSplit, target: str | None, count: int
) -> Iterator[Mapping[str, Rows]]:
    """Yield the numbers of the rows to train and to validate on of each fold, in ascending order.

    By time, a fold trains on all rows before those that it validates on: its window expands. All
    draws have these folds; at random, by class and by group, each draw has others.

    Raises:
        DataError: there are too few rows, groups, or rows of a class.
    """
    if not count:
        return
    if count > len(rows):
        raise DataError(f"{count} folds of {len(rows)} rows are impossible: use fewer folds")
    groups = labels = None
    splitter: Any = KFold(count, shuffle=True, random_state=_seed_of_draw(split))
    if split.time is not None:
        yield from _folds_by_time(table, split.time, rows, count)
        return
    if split.group is not None:
        groups = _codes(table, split.group, rows)
        _check_counts(len(np.unique(groups)), count, f"groups in column {split.group!r}")
        splitter = GroupKFold(count)
        if split.draw:
            splitter = PredefinedSplit(_fold_of_rows(groups, count, _seed_of_draw(split)))
            groups = None  # it has them
    elif split.stratify and target is not None:
        labels = _codes(table, target, rows)
        splitter = StratifiedKFold(count, shuffle=True, random_state=_seed_of_draw(split))
        _check_counts(int(np.unique_counts(labels).counts.min()), count, "rows of a class")
    try:
        for train, validation in splitter.split(rows, labels, groups):
            yield {"train": np.sort(rows[train]), "validation": np.sort(rows[validation])}
    except ValueError as error:
        raise DataError(f"{count} folds are impossible: {error}") from error


def _fold_of_rows(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold that validates on each row, if groups are divided at random.

    `GroupKFold` has a random division only since scikit-learn 1.6; this is the same one: folds of
    about as many groups.
    """
    order = np.random.default_rng(seed).permutation(np.unique(groups))
    folds = np.zeros(len(groups), dtype=int)
    for fold, members in enumerate(np.array_split(order, count)):
        folds[np.isin(groups, members)] = fold
    return folds


def _check_counts(found: int, folds: int, named: str) -> None:
    if found < folds:
        raise DataError(f"{folds} folds need as many {named}, and there are {found}: use fewer")


def _codes(table: pa.Table, column: str, rows: Rows) -> Rows:
    codes = table.column(column).combine_chunks().dictionary_encode().indices.to_numpy()
    return np.asarray(codes[rows])


def _at_random(
    rows: Rows,
    labels: np.ndarray | None,
    shares: Mapping[str, float],
    split: DataSplit,
) -> dict[str, Rows]:
    parts, left = {}, rows
    for name, share in shares.items():
        count = round(share * len(rows))
        parts[name] = rows[:0]
        if not count or count >= len(left):
            continue
        strata = None if labels is None else labels[left]
        try:
            left, parts[name] = train_test_split(
                left,
                test_size=count,
                random_state=split.seed if name == TEST else _seed_of_draw(split),
                stratify=strata,
            )
        except ValueError as error:
            raise DataError(
                f"`split: {{stratify: true}}` is impossible: {error} Leave it out, or merge rare "
                "values of the target"
            ) from error
    return {**parts, "train": left}


def _seed_of_draw(split: DataSplit) -> int:
    """Return the seed of the training and validation part."""
    if not split.draw:
        return split.seed
    return int(np.random.SeedSequence([split.seed, split.draw]).generate_state(1)[0])


def _by_group(
    table: pa.Table,
    column: str,
    shares: Mapping[str, float],
    split: DataSplit,
) -> dict[str, Rows]:
    """Fill the parts with whole groups in random order, until each has its share."""
    encoded = _column(table, column).combine_chunks().dictionary_encode()
    groups = encoded.indices.to_numpy()
    sizes = np.bincount(groups)
    order = np.random.default_rng(split.seed).permutation(len(sizes))
    part_of = np.zeros(len(sizes), dtype=int)
    begin = 0
    for number, (name, share) in enumerate(shares.items(), start=1):
        if split.draw and name != TEST:
            order[begin:] = np.random.default_rng(_seed_of_draw(split)).permutation(order[begin:])
        filled = np.cumsum(sizes[order[begin:]])
        end = begin + int(np.searchsorted(filled, share * len(groups) - 0.5) + 1) * (share > 0)
        part_of[order[begin:end]] = number
        begin = end
    numbers = dict(enumerate(shares, start=1)) | {0: "train"}
    return {name: np.flatnonzero(part_of[groups] == number) for number, name in numbers.items()}


def _by_time(table: pa.Table, column: str, shares: Mapping[str, float]) -> dict[str, Rows]:
    """Take the last rows as the test part, and those before them to validate on.

    Rows of one moment stay together, in the later part.
    """
    rows, begins = _in_time(table, column, np.arange(table.num_rows))
    parts, end = {}, len(rows)
    for name, share in shares.items():
        begin = _begin_of_moment(begins, max(0, end - round(share * len(rows))))
        parts[name] = rows[begin:end]
        end = begin
    return {**parts, "train": rows[:end]}


def _folds_by_time(
    table: pa.Table, column: str, rows: Rows, count: int
) -> Iterator[Mapping[str, Rows]]:
    """Yield folds of about equal size, each trained on all rows before it.

    scikit-learn's `TimeSeriesSplit` may put rows of one moment on both sides.
    """
    rows, begins = _in_time(table, column, rows)
    size = len(rows) // (count + 1)
    ends = [_begin_of_moment(begins, len(rows) - k * size) for k in range(count, -1, -1)]
    if min(np.diff([0, *ends])) == 0:
        raise DataError(
            f"{count} folds by time are impossible: column {column!r} has {len(begins) - 1} "
            "moments, and rows of one stay together. Use fewer folds"
        )
    for begin, end in pairwise(ends):
        yield {"train": np.sort(rows[:begin]), "validation": np.sort(rows[begin:end])}


def _in_time(table: pa.Table, column: str, rows: Rows) -> tuple[Rows, np.ndarray]:
    """Return rows in the order of their times, and the places at which moments begin, and end."""
    times = pa.table({column: _column(table, column)}).take(rows)
    order = pa.compute.sort_indices(times, [(column, "ascending")]).to_numpy()
    moments = times.column(column).take(order).combine_chunks().dictionary_encode().indices
    begins = np.flatnonzero(np.diff(moments.to_numpy(), prepend=-1))
    return rows[order], np.append(begins, len(rows))


def _begin_of_moment(begins: np.ndarray, place: int) -> int:
    """Return the place at which the moment of a place begins."""
    return int(begins[np.searchsorted(begins, place, side="right") - 1])


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table.column(name)
    if column.null_count:
        raise DataError(f"column {name!r}, which splits the rows, has {column.null_count} gaps")
    return column
