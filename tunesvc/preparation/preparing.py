"""Prepares a version of a study's data, or finds that it is prepared.

The steps: read, identify the version, take its lock, split, fit on the training part, transform,
describe, store, publish. Runs in a process of its own, see `preparation_main`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import sklearn

from tunesvc.artifacts.artifact_store import Artifact
from tunesvc.data.part import TARGET_KEY, VERSION_KEY
from tunesvc.data.prepared_data import TEST, part_of_fold
from tunesvc.errors import ArtifactMissing, DataError
from tunesvc.preparation import column_transformer
from tunesvc.preparation.column_statistics import describe, find_warnings
from tunesvc.preparation.data_store import DataFile, DataInput, DataManifest, DataStore
from tunesvc.preparation.feature_frame import to_frame, with_plain_values
from tunesvc.preparation.feature_store import read_features
from tunesvc.preparation.splitting import fold_rows, split_rows
from tunesvc.preparation.table_source import (
    Load,
    SourceTable,
    call_function,
    digest_inputs,
    read_files,
)
from tunesvc.spec.sections.data_keys import Data, FeatureStore, is_function
from tunesvc.util.paths import home_directory
from tunesvc.util.suggestions import suggest

FORMAT = 1
"""Raise it when the same data and settings give other bytes."""
_PROBED = 32
"""Rows that are transformed one by one to see whether a batch gives the same bits."""

Say = Callable[[str], None]
"""Shows what is done, in a few words."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """A version to prepare, with its place and code."""

    data: Data
    folder: Path
    """The study's folder."""
    store: DataStore
    load: Load
    """Imports what an import path names."""
    code: str
    """Digest of the study's own transformers."""
    folds: int | None = None
    """Number of folds, each with a preparation of its own; None for one validation part."""

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of `data`, and the number of folds if there are any."""
        settings = self.data.model_dump(mode="json")
        return settings if self.folds is None else {**settings, "folds": self.folds}


def prepare(task: Preparation, say: Say, rows_of: str = "") -> DataManifest:
    """Return a version's manifest, once the version is stored.

    Args:
        task: the version to prepare.
        say: shows what is done.
        rows_of: a version of the same study whose stored rows are prepared; by default those that
            the source gives now.

    Raises:
        DataError: the data cannot be prepared; the text has the remedy.
    """
    begun_s = time.monotonic()
    say("reading data")
    read = _read_stored(task, rows_of) if rows_of else _read_computed(task)
    inputs = read.inputs if read else digest_inputs(str(task.data.source), task.folder)
    version = version_of(task, inputs)
    if (found := task.store.find(version)) is not None:
        return found
    with _locked(version, say):
        if (found := task.store.find(version)) is not None:
            return found
        say(f"preparing data, version {version}")
        manifest = _Preparing(task, version, read or _read_files(task, inputs)).run()
        manifest = replace(manifest, seconds=time.monotonic() - begun_s)
        task.store.publish(manifest)
    return manifest


def _read_stored(task: Preparation, version: str) -> SourceTable:
    """Return the rows of a version.

    Raises:
        DataError: it was removed.
    """
    base = task.store.find(version)
    if base is None:
        raise DataError(
            f"the study uses the rows of version {version}, which was removed: `tune rm` deletes "
            "the study, and the next `tune watch` looks at today's data"
        )
    try:
        return _stored_rows(task, base)
    except ArtifactMissing:
        raise DataError(f"the rows of version {version} were removed") from None


def _read_computed(task: Preparation) -> SourceTable | None:
    """Return the table of a function or a feature store, which is known only when it is there.

    None for files: their digests tell whether they have to be read.
    """
    source = task.data.source
    if isinstance(source, FeatureStore):
        return read_features(source, task.folder)
    if is_function(source):
        return call_function(source, task.load, task.data.target)
    return None


def _read_files(task: Preparation, inputs: tuple[DataInput, ...]) -> SourceTable:
    """Read the source's files.

    Raises:
        DataError: they cannot be read, or have changed since their digests were taken.
    """
    source = str(task.data.source)
    read = read_files(source, task.folder, inputs)
    if digest_inputs(source, task.folder) != inputs:
        raise DataError(f"{source} was changed while it was read: start the study again")
    return read


def refit(task: Preparation, version: str, say: Say) -> DataManifest:
    """Return the version that is fitted on training and validation part together.

    Made from the rows that were stored with the version, so that it needs no source. The parts
    `validation` and `test` have the same rows as before; those of `validation` are in `train`, too.

    Raises:
        DataError: the version was removed and its source has changed, or code or scikit-learn have.
    """
    base = task.store.find(version) or prepare(task, say)
    if base.version != version or version_of(task, base.inputs) != version:
        raise DataError(
            f"the study has data of version {version}, which cannot be prepared again: its "
            "source, the code of its transformers or scikit-learn has changed since. Restore them, "
            "or run a new study"
        )
    name = hashlib.sha256(f"refit {version}".encode()).hexdigest()[:12]
    if (found := task.store.find(name)) is not None:
        return found
    with _locked(name, say):
        if (found := task.store.find(name)) is not None:
            return found
        say("preparing data, fitted on training and validation part")
        manifest = _Preparing(task, name, _stored_rows(task, base)).run(refit_of=version)
        task.store.publish(manifest)
    return manifest


def _stored_rows(task: Preparation, base: DataManifest) -> SourceTable:
    """Return the rows of a version as they were read."""
    with tempfile.TemporaryDirectory(prefix="tunesvc-data-") as folder:
        path = Path(folder, "raw")
        task.store.files.get(base.raw.digest, path)
        table = pa.parquet.read_table(path, memory_map=False)
    split = task.data.split
    known = {*base.schema, *task.data.drop, split.group, split.time, task.data.target}
    unknown = [name for name in table.column_names if name not in known]
    if task.data.target is None:  # the only one that a function can have named
        return SourceTable(table, tuple(base.inputs), next(iter(unknown), None))
    return SourceTable(table, tuple(base.inputs), None, tuple(unknown))


def version_of(task: Preparation, inputs: Iterable[DataInput]) -> str:
    """Return the name of a version: a digest of inputs, settings and code."""
    settings = task.settings
    del settings["source"]
    if not settings["split"]["draw"]:
        del settings["split"]["draw"]  # versions of before that key stay what they are
    described = [FORMAT, settings, [one.digest for one in inputs]]
    described += [task.code, sklearn.__version__]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def _locked(version: str, say: Say) -> Iterator[None]:
    """Hold a version's lock on this machine, which ends with this process."""
    folder = home_directory() / "data" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / version, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another study that prepares this data")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Preparing:
    """The preparation of one version."""

    def __init__(self, task: Preparation, version: str, read: SourceTable) -> None:
        self._task = task
        self._version = version
        self._inputs = read.inputs
        self._target = task.data.target or read.target
        self._table = with_plain_values(read.table).combine_chunks()
        self._check_columns()
        split = task.data.split
        unused = {*task.data.drop, *read.identifying, split.group, split.time, self._target}
        self._features = [name for name in self._table.column_names if name not in unused]
        self._check_features()

    def run(self, refit_of: str = "") -> DataManifest:
        """Store all files, and return the manifest.

        Args:
            refit_of: a version whose validation part is trained on, too.
        """
        data = self._task.data
        folds = self._task.folds
        rows = split_rows(self._table, data.split, self._target, has_folds=folds is not None)
        if refit_of:
            rows = {**rows, "train": np.sort(np.append(rows["train"], rows["validation"]))}
        table = self._table.select(self._features)
        transformer = self._fitted(rows["train"])
        pickled = column_transformer.dump(transformer)
        by_row = not _is_exact(transformer, to_frame(table.take(rows["train"])))
        frames = self._transformed(transformer, rows, by_row)
        warnings: list[str] = []
        if not refit_of:  # its rows are in two parts by design
            warnings += find_warnings(self._table, rows, self._target, self._features)
        if by_row:
            warnings.append(
                "the transformer gives other bits for a row than for a batch, so that rows are "
                "transformed one by one: that is slow, and equal in production"
            )
        warnings += _gaps(frames["train"])
        return DataManifest(
            version=self._version,
            created_at=datetime.now(UTC).isoformat(),
            source=str(data.source),
            settings=self._task.settings,
            inputs=self._inputs,
            code=self._task.code,
            scikit_learn=sklearn.__version__,
            parts={**self._store_parts(frames, rows), **self._folds(rows["train"], by_row)},
            raw=self._store_raw(),
            preparation=_data_file(self._task.store.files.put([pickled])),
            feature_types={str(name): str(kind) for name, kind in frames["train"].dtypes.items()},
            columns=describe(self._table.take(rows["train"])),
            warnings=warnings,
            by_row=by_row,
            schema={field.name: str(field.type) for field in table.schema},
            refit_of=refit_of,
            test_rows=self._digest_test_rows(rows),
        )

    def _digest_test_rows(self, rows: Mapping[str, np.ndarray]) -> str:
        """Return a name of the rows of the test part; empty without one."""
        if TEST not in rows:
            return ""
        described = [[one.digest for one in self._inputs], rows[TEST].tolist()]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]

    def _fitted(self, rows: np.ndarray) -> Any:
        """Return a transformer that has seen these rows only."""
        table = self._table.select(self._features)
        made = column_transformer.make_transformer(self._task.data, table.schema, self._task.load)
        column_transformer.fit(made, to_frame(table.take(rows)), self._values(rows))
        return made

    def _transformed(
        self, transformer: Any, rows: Mapping[str, np.ndarray], by_row: bool
    ) -> dict[str, pd.DataFrame]:
        table = self._table.select(self._features)
        return {
            name: column_transformer.transform_rows(
                transformer, to_frame(table.take(part)), by_row=by_row
            )
            for name, part in rows.items()
        }

    def _folds(self, rows: np.ndarray, by_row: bool) -> dict[str, DataFile]:
        """Store the parts of each fold, transformed by what was fitted on its training part."""
        stored = {}
        split, count = self._task.data.split, self._task.folds or 0
        for fold, parts in enumerate(fold_rows(self._table, rows, split, self._target, count)):
            frames = self._transformed(self._fitted(parts["train"]), parts, by_row)
            for name, file in self._store_parts(frames, parts).items():
                stored[part_of_fold(name, fold)] = file
        return stored

    def _store_parts(
        self, frames: Mapping[str, pd.DataFrame], rows: Mapping[str, np.ndarray]
    ) -> dict[str, DataFile]:
        return {name: self._store_part(frames[name], rows[name]) for name in rows}

    def _check_columns(self) -> None:
        """Refuse data in which a named column is missing, or a target has gaps."""
        data, names = self._task.data, self._table.column_names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"two columns are named {twice[0]!r}: give them other names")
        used = {"data.target": [self._target], "data.drop": data.drop}
        used |= {"data.split.group": [data.split.group], "data.split.time": [data.split.time]}
        for key, listed in used.items():
            for name in listed:
                if name is not None and name not in names:
                    shown = ", ".join(names[:20])
                    hint = suggest(name, names) or f"; its columns: {shown}"
                    raise DataError(f"{key}: {data.source} has no column {name!r}{hint}")
        if not self._table.num_rows:
            raise DataError(f"{data.source} has no rows")
        if self._target is not None:
            self._check_target(self._target)

    def _check_features(self) -> None:
        source = self._task.data.source
        if not self._features:
            raise DataError(f"{source} has no column left to learn from: drop fewer")
        for name in self._features:
            kind = self._table.schema.field(name).type
            if pa.types.is_nested(kind):
                raise DataError(
                    f"column {name!r} of {source} is {kind}: drop it, or make columns of single "
                    "values from it, by a function as `source`"
                )

    def _check_target(self, target: str) -> None:
        column = self._table.column(target)
        missing = pa.compute.is_null(column, nan_is_null=True)
        if gaps := pa.compute.sum(missing).as_py():
            first = int(pa.compute.index(missing, True).as_py())
            raise DataError(
                f"the target {target!r} has gaps, {gaps} of {len(column)}, first in row {first} "
                "(from 0): remove those rows, since a study learns nothing from them"
            )
        if pa.types.is_nested(column.type) or pa.types.is_temporal(column.type):
            raise DataError(f"the target {target!r} is {column.type}: a number or text is needed")

    def _values(self, rows: np.ndarray) -> np.ndarray | None:
        if self._target is None:
            return None
        column = self._table.column(self._target).take(rows)
        return np.asarray(column.to_pandas())

    def _store_part(self, frame: pd.DataFrame, rows: np.ndarray) -> DataFile:
        """Store a part: one batch, so that columns of one type lie at equal distances."""
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if self._target is not None:
            if self._target in table.column_names:
                raise DataError(
                    f"the transformer returns a column {self._target!r}, as the target is named: "
                    "give it another name"
                )
            table = table.append_column(self._target, self._table.column(self._target).take(rows))
        metadata = {VERSION_KEY: self._version.encode(), TARGET_KEY: (self._target or "").encode()}
        table = table.combine_chunks().replace_schema_metadata(metadata)

        def write(path: Path) -> None:
            with pa.ipc.new_file(str(path), table.schema) as file:
                file.write_table(table, max_chunksize=table.num_rows)

        return self._store(write, table.num_rows)

    def _store_raw(self) -> DataFile:
        """Store all rows as they were read, in their order, for `tune data diff`."""

        def write(path: Path) -> None:
            pa.parquet.write_table(self._table, path, compression="zstd")

        return self._store(write, self._table.num_rows)

    def _store(self, write: Callable[[Path], None], rows: int) -> DataFile:
        with tempfile.TemporaryDirectory(prefix="tunesvc-data-") as folder:
            path = Path(folder, "file")
            write(path)
            return _data_file(self._task.store.files.put_file(path), rows)


def _is_exact(transformer: Any, frame: pd.DataFrame) -> bool:
    """Return True if rows one by one give the bits of a batch, of which the first are compared."""
    expected = column_transformer.transform(transformer, frame).head(_PROBED)
    singles = column_transformer.transform_rows(transformer, frame.head(_PROBED), by_row=True)
    return all(
        _same_bits(singles.iloc[:, place].to_numpy(), expected.iloc[:, place].to_numpy())
        for place in range(expected.shape[1])
    )


def _same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype.kind in "biuf" and right.dtype.kind in "biuf":
        return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
    return list(map(str, left)) == list(map(str, right))


def _gaps(frame: pd.DataFrame) -> list[str]:
    gaps = frame.isna().sum()
    named = [f"{name} ({count})" for name, count in gaps[gaps > 0].items()]
    if not named:
        return []
    return [
        f"gaps remain in {', '.join(named[:10])}: many models refuse them. "
        "`steps: [{columns: numeric, apply: impute}]` fills them"
    ]


def _data_file(artifact: Artifact, rows: int = 0) -> DataFile:
    return DataFile(artifact.digest, artifact.bytes, rows)
