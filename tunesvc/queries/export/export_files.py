"""Trials as CSV or Parquet files, written in pieces. Columns are those of `build_dataframe`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.queries.export.dataframe import columns, record
from tunesvc.queries.rows import StudyView
from tunesvc.queries.trials.columns import distributions
from tunesvc.queries.trials.filter_language import Names
from tunesvc.queries.trials.pagination import Selection, trial_chunks
from tunesvc.util.formatting import escape_csv_formula

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP = 20_000
"""Rows of a Parquet row group."""


class Export:
    """The selected trials as a file. Memory use does not grow with their number.

    Args:
        database: Database to read.
        study: Study of the trials.
        names: Names that the study has, see `names_of`.
        selection: Filter and order of the trials.
        limit: Most trials to write; all if None.
    """

    def __init__(
        self,
        database: Database,
        study: StudyView,
        names: Names,
        selection: Selection,
        limit: int | None = None,
    ) -> None:
        self._database = database
        self._study = study
        self._params = list(names.params)
        self._selection = selection
        self._limit = limit
        self.columns = columns(study, names)
        self.written = 0
        """Number of trials written so far."""

    def csv(self) -> Iterator[str]:
        """Yield CSV: a header and a line per trial.

        Numbers are exact, durations in seconds, times in ISO 8601 (UTC). Missing values are empty,
        and text is escaped so that a spreadsheet does not run it as a formula.
        """
        yield _lines([map(escape_csv_formula, self.columns)])
        for rows in self._chunks():
            yield _lines(map(_cell, one.values()) for one in rows)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield each trial's values by column; None for missing values."""
        for rows in self._chunks():
            yield from rows

    def parquet(self) -> Iterator[bytes]:
        """Yield a Parquet file, a row group at a time."""
        import pyarrow.parquet as pq

        schema = self._schema()
        sink = _Sink()
        with pq.ParquetWriter(sink, schema) as writer:
            for group in _grouped(self._chunks(), _GROUP):
                writer.write_table(_table(group, schema))
                yield sink.drain()
        yield sink.drain()

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        for rows in trial_chunks(self._database, self._selection, self._limit):
            chunk = []
            for row in rows:
                values = record(self._study, row)
                chunk.append({name: values.get(name) for name in self.columns})
            yield chunk
            self.written += len(rows)

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        time = pa.timestamp("us", tz="UTC")
        types = {
            "number": pa.int64(),
            "state": pa.string(),
            "feasible": pa.bool_(),
            "failure": pa.string(),
            "tags": pa.string(),
            "note": pa.string(),
            "last_step": pa.int64(),
            "attempts": pa.int64(),
            "started_at": time,
            "ended_at": time,
        }
        types |= {name: pa.string() for name in self.columns if name.startswith("attrs.")}
        with self._database.engine.connect() as connection:
            stored = distributions(connection, self._study.study_id, self._params)
        for name in self._params:
            of_name = [distribution_of(text) for text in stored[name]]
            types[f"params.{name}"] = _parameter_type(of_name)
        return pa.schema([(name, types.get(name, pa.float64())) for name in self.columns])


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _cell(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else escape_csv_formula(value)


def _grouped(
    chunks: Iterator[list[dict[str, Any]]],
    size: int,
) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for chunk in chunks:
        group += chunk
        if len(group) >= size:
            yield group
            group = []
    yield group


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for field in schema:
        values = [_to_type(row[field.name], field.type) for row in rows]
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)


def _to_type(value: Any, column_type: pa.DataType) -> Any:
    # Parquet has one type per column: a parameter with numbers and words becomes text.
    import pyarrow as pa

    return str(value) if value is not None and pa.types.is_string(column_type) else value


def _parameter_type(distributions: Sequence[BaseDistribution]) -> pa.DataType:
    import pyarrow as pa

    if all(isinstance(one, IntDistribution) for one in distributions):
        return pa.int64()
    choices: list[Any] = []
    for one in distributions:
        if isinstance(one, CategoricalDistribution):
            choices += one.choices
    types = {type(choice) for choice in choices if choice is not None}
    if not choices or types <= {int, float}:
        return pa.float64() if types != {int} else pa.int64()
    return pa.bool_() if types == {bool} else pa.string()


class _Sink(io.RawIOBase):
    """Buffer of written bytes until they are drained."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._written += len(self._parts[-1])
        return len(self._parts[-1])

    def drain(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
