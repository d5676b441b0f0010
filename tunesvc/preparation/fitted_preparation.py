"""The fitted preparation of a study, for production: the same bits as the trials got.

Needs the artifact store and scikit-learn, and no database. Built-in steps compute each value alone,
so a row gives the same bits as a batch. Where a transformer of the user's does not, the preparation
has found that out, and rows are transformed one by one, here as there.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataManifest, DataStore, parse_manifest

if TYPE_CHECKING:
    import pandas as pd


_MANIFEST = "preparation.json"
_PICKLE = "preparation.pkl"


class FittedPreparation:
    """Prepares rows as those of the training part were prepared."""

    def __init__(self, manifest: DataManifest, transformer: Any) -> None:
        """Use a fitted transformer of scikit-learn."""
        self.version = manifest.version
        """The version of the data that it was fitted on."""
        self.features = list(manifest.features)
        """Names of the columns that it returns, in the order of `X`."""
        self._manifest = manifest
        self._transformer = transformer

    def transform(self, rows: Any) -> pd.DataFrame:
        """Return prepared rows, equal to the last bit to those that trials got.

        Args:
            rows: a mapping for one row, a list of mappings, a DataFrame or a `pyarrow.Table`, with
                the columns that were read for the study. Others are ignored.

        Raises:
            DataError: a column is missing, or a value has another type.
        """
        from tunesvc.preparation.column_transformer import transform_rows
        from tunesvc.preparation.feature_frame import from_rows, to_frame

        frame = to_frame(from_rows(rows, self._manifest.schema))
        result = transform_rows(self._transformer, frame, by_row=self._manifest.by_row)
        types: Mapping[str, str] = dict(self._manifest.feature_types)
        return result.astype(types)


def load_preparation(named: str, store: str | None = None) -> FittedPreparation:
    """Return the fitted preparation of a study, by the study's name or the version of its data.

    It is unpickled: use only artifact stores that you trust.

    Args:
        named: name of the study, or a version, see `tune data ls`.
        store: address of the artifact store; `TUNE_ARTIFACTS` by default.

    Raises:
        DataError: there is none, or it needs what is not installed.
    """
    found = DataStore.open(store)
    manifest = found.get(named)
    return _unpickled(manifest, b"".join(found.files.read(manifest.preparation.digest)), named)


FILES = frozenset({_PICKLE, _MANIFEST})
"""Files of a preparation in a folder."""


def write_preparation(folder: Path, version: str) -> None:
    """Write the fitted preparation of a version into a folder, for `read_preparation`."""
    found = DataStore.open()
    manifest = found.get(version)
    found.files.get(manifest.preparation.digest, folder / _PICKLE)
    (folder / _MANIFEST).write_text(json.dumps(asdict(manifest)))


def read_preparation(folder: Path) -> FittedPreparation:
    """Return the fitted preparation in a folder. It is unpickled: read only what you trust.

    Raises:
        DataError: it needs what is not installed.
    """
    manifest = parse_manifest((folder / _MANIFEST).read_bytes())
    return _unpickled(manifest, (folder / _PICKLE).read_bytes(), str(folder))


def _unpickled(manifest: DataManifest, content: bytes, named: str) -> FittedPreparation:
    _require_same_library(manifest)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return FittedPreparation(manifest, pickle.loads(content))  # noqa: S301
    except ModuleNotFoundError as error:
        raise DataError(
            f"the preparation of {named!r} needs the module {error.name!r}, which has its "
            "transformers: put the study's folder on Python's path"
        ) from error


def _require_same_library(manifest: DataManifest) -> None:
    try:
        from sklearn import __version__ as installed
    except ModuleNotFoundError:
        installed = "not installed"
    if installed != manifest.scikit_learn:
        raise DataError(
            f"version {manifest.version} was prepared by scikit-learn {manifest.scikit_learn}, and "
            f"here it is {installed}: run `pip install scikit-learn=={manifest.scikit_learn}`, "
            "since another release may give other numbers"
        )
