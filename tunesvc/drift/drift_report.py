"""A report on the drift of a version of a table against an earlier one.

The level holds for a version: the probability that a version of an unchanged source raises an alarm
is at most `level`, however many columns it has. Holm's correction (Holm 1979, "A simple
sequentially rejective multiple test procedure") holds it under any dependence between columns, and
for each column that is named, which a bound on the false discovery rate would not.

With many rows, tiny changes are significant. So a column has drifted only if its distance reaches
a threshold, too; that makes alarms rarer, never more frequent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tunesvc.drift.column_drift import ColumnTest, Kind, compare_column

_PROBED = 16
_CANDIDATES = 1_000


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """A column's test, corrected for the number of columns."""

    column: str
    kind: Kind
    p_value: float
    adjusted: float
    """The p-value corrected for the number of tests."""
    distance: float
    psi: float | None
    is_target: bool
    has_drifted: bool


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Differences between two versions of a table, in columns and in their distributions."""

    level: float
    """Probability of an alarm for a version of an unchanged source, at most."""
    distance: float
    """Least distance of a column that has drifted."""
    before: int
    """Rows of the earlier version."""
    after: int
    """Rows of the later version that were compared."""
    carried: int
    """Rows of the later version that the earlier one has too, and that were not compared."""
    changed_columns: tuple[str, ...]
    """Columns that came, went, or have another type."""
    columns: tuple[ColumnDrift, ...]
    """Tests, the target's first, then by adjusted p-value."""

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """Tests of columns that have drifted."""
        return tuple(one for one in self.columns if one.has_drifted)

    @property
    def is_alarm(self) -> bool:
        """True if a column has drifted, came, went, or has another type."""
        return bool(self.drifted or self.changed_columns)


def read_report(stored: Mapping[str, Any]) -> DriftReport:
    """Return a report from its plain data, as of `dataclasses.asdict`."""
    columns = tuple(ColumnDrift(**one) for one in stored["columns"])
    fields = {**stored, "changed_columns": tuple(stored["changed_columns"]), "columns": columns}
    return DriftReport(**fields)


def compare_tables(
    before: pa.Table,
    after: pa.Table,
    *,
    columns: Sequence[str],
    target: str | None = None,
    level: float = 0.05,
    distance: float = 0.1,
) -> DriftReport:
    """Compare two versions of a table.

    If the later version begins with rows that end the earlier one, as a table that grows or a
    window that moves does, only its other rows are compared: the same rows twice show no change.

    Args:
        before: the earlier version.
        after: the later version.
        columns: names of the columns to compare, in either version; the order has no effect.
        target: the one of them that is predicted.
        level: bound on the probability of a false alarm for the whole version.
        distance: least distance of a column that has drifted, see `ColumnTest.distance`.
    """
    changed = sorted(_changed_columns(before, after, columns))
    names = sorted(set(columns) - set(changed))
    carried = count_carried(before.select(names), after.select(names))
    fresh = after.slice(carried)
    if not fresh.num_rows:
        carried, fresh = 0, after
    tests: list[ColumnTest] = []
    for name in names:
        tests += compare_column(name, before.column(name), fresh.column(name))
    return DriftReport(
        level,
        distance,
        before.num_rows,
        fresh.num_rows,
        carried,
        tuple(changed),
        _corrected(tests, target, level, distance),
    )


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's method; shape (tests,)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(p_values[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def count_carried(before: pa.Table, after: pa.Table) -> int:
    """Return the number of rows at the start of `after` that are the last ones of `before`."""
    if not (before.num_columns and before.num_rows and after.num_rows):
        return 0
    old, new = _row_hashes(before), _row_hashes(after)
    starts = np.flatnonzero(old == new[0])
    probed = np.minimum(_PROBED, np.minimum(len(old) - starts, len(new)))
    fitting = [
        start
        for start, length in zip(starts, probed, strict=True)
        if np.array_equal(old[start : start + length], new[:length])
    ]
    for start in fitting[:_CANDIDATES]:
        length = len(old) - start
        if length <= len(new) and np.array_equal(old[start:], new[:length]):
            return int(length)
    return 0


def _row_hashes(table: pa.Table) -> np.ndarray:
    import pandas as pd

    frame = table.to_pandas()
    return np.asarray(pd.util.hash_pandas_object(frame, index=False))


def _changed_columns(before: pa.Table, after: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    for name in set(columns):
        tables = [table for table in (before, after) if name in table.column_names]
        families = {_family(table.schema.field(name).type) for table in tables}
        if len(tables) < 2 or len(families) > 1:
            yield name


def _family(kind: pa.DataType) -> str:
    """Return the kind of a type: an integer column with a gap may be read as one of floats."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "time" if pa.types.is_temporal(kind) else str(kind)


def _corrected(
    tests: Sequence[ColumnTest],
    target: str | None,
    level: float,
    distance: float,
) -> tuple[ColumnDrift, ...]:
    adjusted = holm(np.array([test.p_value for test in tests]))
    columns = [
        ColumnDrift(
            test.column,
            test.kind,
            test.p_value,
            float(p_value),
            test.distance,
            test.psi,
            test.column == target,
            bool(p_value <= level and test.distance >= distance),
        )
        for test, p_value in zip(tests, adjusted, strict=True)
    ]
    return tuple(sorted(columns, key=lambda one: (not one.is_target, one.adjusted, one.column)))
