"""Rows as the DataFrame that transformers are fitted on and used on.

A value has one form, in a batch, in a single row, and in production: numbers are doubles (float32
stays), text is Python's with NaN for a gap. So the same row always gives the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tunesvc.errors import DataError


def is_numeric(kind: pa.DataType) -> bool:
    """Return True for numbers, but not for true and false."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind)) or _is_decimal(kind)


def is_categorical(kind: pa.DataType) -> bool:
    """Return True for text, and for true and false."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_boolean(kind))


def with_plain_values(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries, such as categories of pandas, are their values."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, values)
    return table


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table's columns in the form in which transformers get them."""
    return pd.DataFrame({name: _values(table.column(name)) for name in table.column_names})


def from_rows(rows: Any, schema: Mapping[str, str]) -> pa.Table:
    """Return rows of production as a table with the columns that were read for the study.

    Args:
        rows: a DataFrame, a table, a mapping for one row, or a list of mappings.
        schema: the type of each column.

    Raises:
        DataError: a column is missing, or a value is of another type.
    """
    if isinstance(rows, Mapping):
        rows = [rows]
    if not isinstance(rows, (pa.Table, pd.DataFrame, list)):
        raise DataError(
            f"rows are a {type(rows).__name__}: give a mapping for one row, a list of mappings, a "
            "DataFrame or a pyarrow.Table"
        )
    frame = rows.to_pandas() if isinstance(rows, pa.Table) else pd.DataFrame(rows)
    missing = [name for name in schema if name not in frame.columns]
    if missing:
        raise DataError(f"the rows lack {', '.join(missing)}, which the preparation was fitted on")
    columns = {name: _typed(frame[name], name, kind) for name, kind in schema.items()}
    return pa.table(columns)


def _typed(values: Any, name: str, kind: str) -> pa.Array:
    try:
        if decimal := _DECIMAL.fullmatch(kind):
            arrow = pa.decimal128(38, int(decimal[1]))
            values = [None if pd.isna(value) else Decimal(str(value)) for value in values]
        else:
            arrow = _type_of(kind)
        return pa.array(values, type=arrow, from_pandas=True)
    except (ArithmeticError, pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise DataError(f"column {name!r} needs {kind}: {error}") from error


def _type_of(kind: str) -> pa.DataType | None:
    """Return the type of values of production; None for the one that they have by themselves."""
    if zoned := _ZONED.fullmatch(kind):
        return pa.timestamp(*zoned.groups())
    arrow = pa.type_for_alias(kind) if kind in _ALIASES else None
    # Gaps are as pandas has them; `to_frame` makes doubles of all numbers.
    return pa.float64() if arrow is not None and pa.types.is_integer(arrow) else arrow


_DECIMAL = re.compile(r"decimal\d+\(\d+, (-?\d+)\)")
_ZONED = re.compile(r"timestamp\[(\w+), tz=(.+)\]")
_ALIASES = {
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("halffloat", "float", "double", "float16", "float32", "float64"),
    *("bool", "string", "large_string", "date32[day]", "timestamp[s]"),
    *("timestamp[ms]", "timestamp[us]", "timestamp[ns]"),
}


def _values(column: pa.ChunkedArray) -> Any:
    kind = column.type
    if pa.types.is_float32(kind):
        return column.to_numpy()
    if is_numeric(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    if is_categorical(kind):
        values = np.array(column.to_pylist(), dtype=object)
        values[[value is None for value in values]] = np.nan
        return values
    return column.to_pandas()


def _is_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind))
