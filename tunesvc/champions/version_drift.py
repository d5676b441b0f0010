"""Drift between two versions of prepared data, read from the artifact store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from tunesvc.drift.drift_report import DriftReport, compare_tables
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.spec.sections.watch_keys import Watch


def compare_versions(
    store: DataStore,
    before: DataManifest,
    after: DataManifest,
    options: Watch,
) -> DriftReport:
    """Compare all rows of two versions as they were read, their features and the target.

    Inputs have half of the level; the champion's metric has the other half.

    Raises:
        ArtifactMissing: rows of a version were removed.
    """
    target = target_of(after) or target_of(before)
    columns = {*before.schema, *after.schema} | ({target} if target else set())
    return compare_tables(
        _read(store, before, columns),
        _read(store, after, columns),
        columns=sorted(columns),
        target=target,
        level=options.level / 2,
        distance=options.distance,
    )


def target_of(manifest: DataManifest) -> str | None:
    """Return the name of the target; None if there is none."""
    named = manifest.settings.get("target")
    return None if named is None else str(named)


def _read(store: DataStore, manifest: DataManifest, columns: set[str]) -> pa.Table:
    with TemporaryDirectory(prefix="tunesvc-data-") as folder:
        path = Path(folder, "raw.parquet")
        store.files.get(manifest.raw.digest, path)
        names = [name for name in pq.read_schema(path).names if name in columns]
        return pq.read_table(path, columns=names)
