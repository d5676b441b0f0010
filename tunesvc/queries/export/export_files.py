"""Trials as files, in pieces: CSV, and Parquet in row groups. Columns are those of `dataframe.dataframe`."""

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
    """The trials of a selection as a file. Memory stays flat, however many they are.

    Args:
        database: where to read.
        study: whose trials.
        names: what the study has, see `names_of`.
        selection: which trials, in which order.
        limit: at most so many; all when None.
    """

    def __init__(
        self, database: Database, study: StudyView, names: Names, selection: Selection, limit: int | None = None
    ) -> None:
        self._database = database
        self._study = study
        self._params = list(names.params)
        self._selection = selection
        self._limit = limit
        self.columns = columns(study, names)
        self.written = 0
        """Trials, so far."""

    def csv(self) -> Iterator[str]:
        """CSV, a head and a line per trial: numbers as exact as they are stored, seconds, times in ISO 8601 (UTC).

        What is not there is empty, and text is inert in a spreadsheet.
        """
        yield _lines([map(escape_csv_formula, self.columns)])
        for rows in self._chunks():
            yield _lines(map(_cell, one.values()) for one in rows)

    def lines(self) -> Iterator[dict[str, Any]]:
        """A trial after the other, by the names of the columns; None for what is not there."""
        for rows in self._chunks():
            yield from rows

    def parquet(self) -> Iterator[bytes]:
        """Parquet, in row groups."""
        import pyarrow.parquet as pq

        schema = self._schema()
        sink = _Sink()
        with pq.ParquetWriter(sink, schema) as writer:
            for group in _grouped(self._chunks(), _GROUP):
                writer.write_table(_table(group, schema))
                yield sink.taken()
        yield sink.taken()

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        for rows in trial_chunks(self._database, self._selection, self._limit):
            told = (record(self._study, row) for row in rows)
            yield [{name: one.get(name) for name in self.columns} for one in told]
            self.written += len(rows)

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        moment = pa.timestamp("us", tz="UTC")
        kinds = {"number": pa.int64(), "state": pa.string(), "feasible": pa.bool_(), "failure": pa.string()}
        kinds |= {"tags": pa.string(), "note": pa.string()}
        kinds |= {name: pa.string() for name in self.columns if name.startswith("attrs.")}
        kinds |= {"last_step": pa.int64(), "attempts": pa.int64(), "started_at": moment, "ended_at": moment}
        with self._database.engine.connect() as connection:
            drawn = distributions(connection, self._study.study_id, self._params)
        kinds |= {f"params.{name}": _kind([distribution_of(text) for text in drawn[name]]) for name in self._params}
        return pa.schema([(name, kinds.get(name, pa.float64())) for name in self.columns])


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _cell(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else escape_csv_formula(value)


def _grouped(chunks: Iterator[list[dict[str, Any]]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for chunk in chunks:
        group += chunk
        if len(group) >= size:
            yield group
            group = []
    yield group


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = [[_fitting(row[field.name], field.type) for row in rows] for field in schema]
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Parquet wants one type per column: a parameter of numbers and words becomes text."""
    import pyarrow as pa

    return str(value) if value is not None and pa.types.is_string(kind) else value


def _kind(drawn: Sequence[BaseDistribution]) -> pa.DataType:
    import pyarrow as pa

    if all(isinstance(one, IntDistribution) for one in drawn):
        return pa.int64()
    choices = [choice for one in drawn if isinstance(one, CategoricalDistribution) for choice in one.choices]
    kinds = {type(choice) for choice in choices if choice is not None}
    if not choices or kinds <= {int, float}:
        return pa.float64() if kinds != {int} else pa.int64()
    return pa.bool_() if kinds == {bool} else pa.string()


class _Sink(io.RawIOBase):
    """Collects what is written until it is taken."""

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

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
