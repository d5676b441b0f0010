"""Reads the source of a study's data: CSV or Parquet files on any file system, or a function.

Files are read in blocks, and reading ends with an error as soon as they are too large to prepare.
Runs in the preparation's process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec.core
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataInput
from tunesvc.preparation.free_memory import free_memory
from tunesvc.util.formatting import size as as_size
from tunesvc.util.paths import is_url

MEMORY = "TUNE_DATA_MEMORY"
"""Environment variable: bytes of memory that a preparation may use."""
COPIES = 4
"""Times that the rows are in memory while they are prepared."""
_READ_BYTES = 4 * 2**20

Load = Callable[[str], Any]
"""Imports what an import path names."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that was read, with its inputs."""

    table: pa.Table
    inputs: tuple[DataInput, ...]
    target: str | None
    """Name of the target's column."""
    identifying: tuple[str, ...] = ()
    """Columns that only identify rows, and are no features."""


def digest_inputs(source: str, folder: Path) -> tuple[DataInput, ...]:
    """Return name, digest and size of each file of a source.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    return tuple(_digest_file(filesystem, path) for filesystem, path in _files(source, folder))


def read_files(source: str, folder: Path, inputs: tuple[DataInput, ...]) -> SourceTable:
    """Read all files of a source into one table.

    Raises:
        DataError: one cannot be read, their columns differ, or they are too large.
    """
    meter = _MemoryMeter()
    batches: list[pa.RecordBatch] = []
    first: tuple[str, pa.Schema] | None = None
    for filesystem, path in _files(source, folder):
        for batch in _batches(filesystem, path):
            if first is None:
                first = path, batch.schema
            elif batch.schema.remove_metadata() != first[1].remove_metadata():
                raise DataError(_schema_change(first[0], first[1], path, batch.schema))
            meter.add(batch.nbytes, path)
            batches.append(batch)
    if first is None:
        raise DataError(f"{source} has no rows")
    return SourceTable(pa.Table.from_batches(batches), inputs, None)


def call_function(source: str, load: Load, target: str | None) -> SourceTable:
    """Call a function for a table, or for `(X, y)`.

    Raises:
        DataError: it raised, or returned something else.
        EntrypointError: there is none.
    """
    function = load(source)
    try:
        returned = function()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"source {source!r} raised {type(error).__name__}: {error}") from error
    table, target = _as_table(source, returned, target)
    _MemoryMeter().add(table.nbytes, source)
    return SourceTable(table, (digest_table(source, table),), target)


def digest_table(name: str, table: pa.Table) -> DataInput:
    """Return a digest of a table's content, as that of an input."""
    digest = hashlib.sha256()
    with pa.ipc.new_stream(pa.PythonFile(_HashFile(digest), "w"), table.schema) as stream:
        stream.write_table(table, max_chunksize=2**16)
    return DataInput(name, digest.hexdigest(), table.nbytes)


class _HashFile:
    """A file whose content is only hashed."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, content: bytes) -> int:
        """Add content."""
        self._digest.update(content)
        return len(content)

    def flush(self) -> None:
        """Do nothing."""


class _MemoryMeter:
    """Counts the bytes that have been read, up to those that may be."""

    def __init__(self) -> None:
        self._bytes = 0
        self._memory = _memory_limit()

    def add(self, size: int, name: str) -> None:
        """Count rows that were read.

        Raises:
            DataError: they are too large to prepare.
        """
        self._bytes += size
        if COPIES * self._bytes > self._memory:
            raise DataError(
                f"the data are too large to prepare here: {as_size(self._bytes)} were read when "
                f"reading ended in {name}. Preparation needs {COPIES} times the size of the data, "
                f"and {as_size(self._memory)} of memory are free. Read fewer rows or columns, by "
                f"a function as `source`; use a larger machine; or set {MEMORY} to more bytes"
            )


def _memory_limit() -> int:
    given = os.environ.get(MEMORY)
    if not given:
        return free_memory()
    try:
        return int(float(given))
    except ValueError:
        raise DataError(f"{MEMORY} is {given!r}: write a number of bytes") from None


def _files(source: str, folder: Path) -> Iterator[tuple[Any, str]]:
    """Yield the file system and path of each file, in order of their names."""
    address = source if is_url(source) else str(folder / Path(source).expanduser())
    try:
        filesystem, pattern = fsspec.core.url_to_fs(address)
        is_pattern = any(sign in pattern for sign in "*?[")
        if not is_pattern and filesystem.isdir(pattern):
            pattern = f"{pattern.rstrip('/')}/*"
            is_pattern = True
        found = filesystem.glob(pattern) if is_pattern else [pattern]
        paths = sorted(path for path in found if filesystem.isfile(path))
    except Exception as error:  # each file system has exceptions of its own
        raise DataError(f"source {source!r} cannot be opened: {_line(error)}") from error
    if not paths:
        is_relative = not is_url(source) and not Path(source).expanduser().is_absolute()
        place = f" in {folder}" if is_relative else ""
        raise DataError(
            f"source: there is no file {source!r}{place}. Write a path from the study file's "
            "folder, a URL, or `module:function`"
        )
    for path in paths:
        yield filesystem, str(path)


def _digest_file(filesystem: Any, path: str) -> DataInput:
    digest, size = hashlib.sha256(), 0
    try:
        with closing(filesystem.open(path, "rb")) as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
                size += len(piece)
    except Exception as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    return DataInput(path.rpartition("/")[2], digest.hexdigest(), size)


def _batches(filesystem: Any, path: str) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in blocks.

    Raises:
        DataError: it cannot be read, or is of another kind.
    """
    readers = {".csv": _csv_batches, ".tsv": _tsv_batches, ".parquet": _parquet_batches}
    plain = path.lower().removesuffix(".gz")
    reader = next((one for ending, one in readers.items() if plain.endswith(ending)), None)
    if reader is None:
        raise DataError(
            f"{path} is of no kind that is read: use .csv, .tsv or .parquet, or a function",
        )
    try:
        compression = "gzip" if plain != path.lower() else None
        with closing(filesystem.open(path, "rb", compression=compression)) as file:
            batches = reader(file)
            empty = pa.RecordBatch.from_pylist([])
            start = next(batches, empty)
            if not start.num_columns:
                raise DataError(f"{path} has no rows")
            yield from chain([start], batches)
    except DataError:
        raise
    except Exception as error:
        hint = ""
        if "conversion error" in str(error):
            hint = (
                ". Later rows have another type than the first block: repair them, or read the "
                "file by a function that says the types"
            )
        raise DataError(f"{path} cannot be read: {_line(error)}{hint}") from error


def _csv_batches(file: Any, delimiter: str = ",") -> Iterator[pa.RecordBatch]:
    options = pa.csv.ParseOptions(delimiter=delimiter)
    for batch in pa.csv.open_csv(file, parse_options=options):
        yield pa.RecordBatch.from_arrays(
            [_without_empty(column) for column in batch.columns],
            schema=batch.schema,
        )


def _without_empty(column: pa.Array) -> pa.Array:
    """Make empty text a gap. Words such as `NA` stay: they may be a country."""
    if not pa.types.is_string(column.type):
        return column
    return pa.compute.if_else(pa.compute.equal(column, ""), None, column)


def _tsv_batches(file: Any) -> Iterator[pa.RecordBatch]:
    return _csv_batches(file, "\t")


def _parquet_batches(file: Any) -> Iterator[pa.RecordBatch]:
    yield from pa.parquet.ParquetFile(file).iter_batches()


def _schema_change(first: str, expected: pa.Schema, path: str, found: pa.Schema) -> str:
    changes = []
    for name in expected.names:
        if name not in found.names:
            changes.append(f"{name} is missing")
        elif expected.field(name).type != found.field(name).type:
            kinds = f"{found.field(name).type} instead of {expected.field(name).type}"
            changes.append(f"{name} is {kinds}")
    changes += [f"{name} is new" for name in found.names if name not in expected.names]
    what = "; ".join(changes) or "their order differs"
    return f"{path} has other columns than {first}: {what}. All files need the same columns"


def _as_table(source: str, returned: Any, target: str | None) -> tuple[pa.Table, str | None]:
    """Return a function's result as a table, and the name of its target."""
    import pandas as pd

    table = returned
    try:
        if isinstance(returned, tuple) and len(returned) == 2:
            target = target or str(getattr(returned[1], "name", None) or "target")
            table = pa.Table.from_pandas(_joined(*returned, target), preserve_index=False)
        elif isinstance(returned, pd.DataFrame):
            table = pa.Table.from_pandas(returned, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise DataError(f"source {source!r}: {_line(error)}") from error
    if not isinstance(table, pa.Table):
        raise DataError(
            f"source {source!r} returned a {type(returned).__name__}: return a DataFrame, a "
            "pyarrow.Table, or `(X, y)`"
        )
    return table.replace_schema_metadata(None), target


def _joined(features: Any, values: Any, target: str) -> Any:
    """Return `X` and `y` as one frame.

    Raises:
        ValueError: they do not fit together.
    """
    frame = _named(features)
    if target in frame.columns:
        raise ValueError(f"{target!r} names the target and a feature")
    return frame.assign(**{target: getattr(values, "to_numpy", lambda: values)()})


def _named(features: Any) -> Any:
    """Return features as a frame whose columns have names."""
    import pandas as pd

    if isinstance(features, pa.Table):
        return features.to_pandas()
    frame = pd.DataFrame(features)
    if not hasattr(features, "columns"):
        frame.columns = pd.Index([f"x{number}" for number in range(frame.shape[1])])
    return frame


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
