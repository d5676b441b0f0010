"""One part of prepared data: a view of an Arrow file's bytes, as NumPy, Arrow, pandas or torch.

The file holds one batch: the features, then the target. Imports pyarrow, NumPy, pandas and torch
when they are used.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

VERSION_KEY = b"tunesvc:version"
TARGET_KEY = b"tunesvc:target"


class Part:
    """Rows that are read-only, and shared with every other trial on this machine.

    `X, y = trial.data.train` gives matrix and target.
    """

    def __init__(self, buffer: Any, version: str) -> None:
        """Look at a file's bytes.

        Args:
            buffer: what pyarrow can wrap without a copy: an array of bytes or a map of a file.
            version: the version that it has to be of.

        Raises:
            DataError: it is of another version.
        """
        import pyarrow as pa

        self._buffer = pa.py_buffer(buffer)
        with pa.ipc.open_file(self._buffer) as file:
            metadata = file.schema.metadata or {}
            found = metadata.get(VERSION_KEY, b"none").decode()
            if found != version:
                raise DataError(
                    f"the trial needs data of version {version}, and its worker has version "
                    f"{found}: start the study again, so that its workers get the new one"
                )
            self._table = file.read_all()
        self.target: str | None = metadata.get(TARGET_KEY, b"").decode() or None
        """Name of the target's column."""

    @classmethod
    def open(cls, path: Path, version: str) -> Part:
        """Map a file.

        Raises:
            DataError: there is none, or it is of another version.
        """
        try:
            with path.open("rb") as file:
                return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), version)
        except FileNotFoundError:
            raise DataError(
                f"there is no {path}: the data of version {version} was removed from this machine. "
                "Start the study again, which brings it back"
            ) from None

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield matrix and target."""
        yield self.X
        yield self.y

    @property
    def features(self) -> list[str]:
        """Names of the columns of `X`."""
        return [name for name in self._table.column_names if name != self.target]

    @property
    def arrow(self) -> Any:
        """The rows as a `pyarrow.Table`, the target included."""
        return self._table

    @cached_property
    def X(self) -> np.ndarray:  # noqa: N802  # what a design matrix is called
        """The features as a matrix, column by column in memory.

        Raises:
            DataError: a feature is not a number.
        """
        columns = [self._table.column(name) for name in self.features]
        self._require_numbers()
        matrix = _strided(columns, self._buffer) if columns else _stacked(columns, len(self))
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def y(self) -> np.ndarray:
        """The target.

        Raises:
            DataError: the data has no target.
        """
        if self.target is None:
            raise DataError("the data has no target: name its column, `data: {target: NAME}`")
        array: np.ndarray = self._table.column(self.target).chunk(0).to_numpy(zero_copy_only=False)
        array.flags.writeable = False
        return array

    def pandas(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, the target included; numbers are not copied."""
        frame: pd.DataFrame = self._table.to_pandas(split_blocks=True)
        return frame

    def torch(self) -> Any:
        """Return a torch `TensorDataset` of `X` and, if there is one, `y`; neither is copied."""
        import torch

        arrays = [self.X] if self.target is None else [self.X, self.y]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays))

    def shard(self, rank: int, of: int, *, equal: bool = True) -> Part:
        """Return the rows of one of several workers, as views of this part's.

        Args:
            rank: the worker's, from 0.
            of: number of workers.
            equal: gives all workers as many rows, as training in step needs; up to `of - 1` rows at
                the end are then in no shard. Without it, each row is in one shard.

        Raises:
            DataError: there is no such worker, or there are fewer rows than workers.
        """
        if not 0 <= rank < of:
            raise DataError(f"shard({rank}, {of}): ranks of {of} workers are 0 to {of - 1}")
        if len(self) < of:
            raise DataError(f"{len(self)} rows cannot be shared by {of} workers")
        rows = len(self) - len(self) % of if equal else len(self)
        return _Shard(self, rows * rank // of, rows * (rank + 1) // of)

    def _require_numbers(self) -> None:
        import pyarrow.types as types

        for name in self.features:
            kind = self._table.schema.field(name).type
            if not (types.is_integer(kind) or types.is_floating(kind)):
                raise DataError(
                    f"column {name!r} is {kind}, so that `X` is no matrix of numbers: encode it, "
                    f"`steps: [{{columns: [{name}], apply: encode}}]`, drop it, or use `arrow` or "
                    "`pandas()`"
                )


class _Shard(Part):
    """Consecutive rows of a part."""

    def __init__(self, part: Part, start: int, stop: int) -> None:
        self._part = part
        self._rows = slice(start, stop)
        self._buffer = part._buffer
        self._table = part.arrow.slice(start, stop - start)
        self.target = part.target

    @cached_property
    def X(self) -> np.ndarray:  # noqa: N802  # what a design matrix is called
        """The features as a matrix."""
        return self._part.X[self._rows]

    @cached_property
    def y(self) -> np.ndarray:
        """The target."""
        return self._part.y[self._rows]


def _strided(columns: list[Any], buffer: Any) -> np.ndarray:
    """Return a view of columns of one type that lie at equal distances; else a copy."""
    import numpy as np

    arrays = [column.chunk(0) for column in columns if column.num_chunks == 1]
    kinds = {array.type for array in arrays}
    if len(arrays) < len(columns) or len(kinds) != 1 or any(one.null_count for one in arrays):
        return _stacked(columns, len(columns[0]))
    starts = [array.buffers()[1].address for array in arrays]
    distances = {after - before for before, after in pairwise(starts)}
    if len(distances) > 1 or any(array.offset for array in arrays):
        return _stacked(columns, len(columns[0]))
    first = arrays[0].to_numpy(zero_copy_only=True)
    distance = distances.pop() if distances else first.nbytes
    return np.ndarray(
        (len(first), len(arrays)),
        first.dtype,
        np.frombuffer(buffer, np.uint8),
        starts[0] - buffer.address,
        (first.itemsize, distance),
    )


def _stacked(columns: list[Any], rows: int) -> np.ndarray:
    import numpy as np

    if not columns:
        return np.empty((rows, 0))
    return np.column_stack([column.to_numpy() for column in columns])
