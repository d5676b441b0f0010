"""Has a study's data prepared by a process of its own, and records which version the study uses.

The process is killed with this one, and at an interrupt; what it has not published is not there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.data.prepared_data import PreparedData
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import DataError
from tunesvc.execution.driver.cluster_preparation import (
    ClusterPreparation,
    needed_variables,
    study_variables,
)
from tunesvc.execution.driver.ray_pool import is_shared
from tunesvc.execution.preparation_main import PreparationTask
from tunesvc.execution.supervision.connected_process import connected_process
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.queries.operations.data_lineage import DATA_USED, DataUsed, get_data, get_rows_of
from tunesvc.queries.operations.final_runs import FinalRun
from tunesvc.spec import StudySpec
from tunesvc.util.formatting import number

_HERE = "tunesvc.execution.preparation_main"
_ON_CLUSTER = "tunesvc.execution.driver.cluster_preparation"
Task = PreparationTask | ClusterPreparation
COLUMNS = 12
"""Most columns that are described before the first trial."""
_MOMENTS = ("mean", "deviation", "min", "max")
_POLL_S = 0.1
_TAIL_CHARS = 2_000


def prepare_data(
    database: Database,
    record: StudyRecord,
    spec: StudySpec,
    observer: Observer,
    interrupt: threading.Event,
    *,
    final: FinalRun | None = None,
    is_served: bool = False,
    is_snapshot: bool = False,
) -> PreparedData | None:
    """Return a study's data once it is prepared; None without `data`, and at an interrupt.

    Args:
        database: that of the study.
        record: the study.
        spec: its spec.
        observer: sees what is done.
        interrupt: ends the preparation.
        final: set for a final run, which gets the version of the study that was searched; to
            `apply` it, the one that is fitted on its training and validation part together.
        is_served: a server asks. A shared cluster prepares, so that none of the study's code runs
            here; a process of this machine gets no secret of the server.
        is_snapshot: give the cluster every file of the study's folder.

    Raises:
        DataError: the data cannot be prepared, or are not those of the study's trials.
    """
    if spec.data is None:
        return None
    store = DataStore.open()
    rows_of = "" if final is not None else get_rows_of(database, record.study_id)
    if final is not None:
        manifest = None if _is_refitted(final) else store.find(final.version)
    else:
        manifest = _find_same(spec, store, rows_of)
    if manifest is None:
        here = _task(spec, _folder(record), store, final, rows_of)
        task = _place(here, spec, is_snapshot=is_snapshot) if is_served else here
        variables = _environment(task, spec.environment.env, is_served=is_served)
        manifest = _prepared(task, store, variables, observer, interrupt)
    if manifest is None:
        return None
    if final is not None and final.version not in (manifest.version, manifest.refit_of):
        raise DataError(
            f"study {final.study!r} has data of version {final.version}, which was removed, and its"
            f" source now gives version {manifest.version}: restore the data"
        )
    is_new = _record(database, record, manifest, store)
    for text in describe(manifest, with_columns=is_new and final is None):
        observer.on_event(ProgressEvent("study", text))
    for text in manifest.warnings:
        observer.on_event(ProgressEvent("warning", f"data: {text}"))
    if final is None:
        return manifest.prepared(store.address)
    return manifest.prepared_for_final(store.address, is_scored=bool(spec.scoring))


def _is_refitted(final: FinalRun) -> bool:
    """Return True if training and validation part are put together; folds are all of both."""
    return final.kind == "apply" and final.folds is None


def prepare_version(
    spec: StudySpec,
    folder: Path,
    observer: Observer,
    interrupt: threading.Event,
    *,
    rows_of: str = "",
    is_served: bool = False,
    is_snapshot: bool = False,
) -> DataManifest | None:
    """Return the version that a spec's data now are, once it is prepared; None at an interrupt.

    Args:
        spec: a spec with `data`.
        folder: where its code is.
        observer: sees what is done.
        interrupt: ends the preparation.
        rows_of: a version whose rows are prepared, in place of those that the source gives now.
        is_served: see `prepare_data`.
        is_snapshot: give the cluster every file of the folder.

    Raises:
        DataError: the data cannot be prepared.
    """
    store = DataStore.open()
    if (found := _find_same(spec, store, rows_of)) is not None:
        return found
    here = _task(spec, folder, store, rows_of=rows_of)
    task = _place(here, spec, is_snapshot=is_snapshot) if is_served else here
    variables = _environment(task, spec.environment.env, is_served=is_served)
    return _prepared(task, store, variables, observer, interrupt)


def _place(here: PreparationTask, spec: StudySpec, *, is_snapshot: bool) -> Task:
    """Return the task of a server: for the cluster, if that is a shared one."""
    if not is_shared(spec.cluster):
        return here
    return ClusterPreparation(here, spec.cluster, spec.environment, is_snapshot)


def _environment(task: Task, variables: Mapping[str, str], *, is_served: bool) -> dict[str, str]:
    """Return the variables of the process that does a task.

    The study's own may make Python run its code, and so are for a process that runs it anyway.
    """
    if isinstance(task, ClusterPreparation):
        return needed_variables(os.environ)
    inherited = study_variables(os.environ) if is_served else {**os.environ}
    inherited.pop("TMPDIR", None)
    return {**inherited, **variables}


def _find_same(spec: StudySpec, store: DataStore, version: str) -> DataManifest | None:
    """Return a version that was prepared by the settings of a spec; None if it was not.

    Its rows count, and not the source that has given them.
    """
    found = store.find(version) if version else None
    if found is None or spec.data is None:
        return None
    settings: dict[str, Any] = spec.data.model_dump(mode="json")
    if (folds := _folds(spec)) is not None:
        settings["folds"] = folds
    return found if {**found.settings, "source": None} == {**settings, "source": None} else None


def _folds(spec: StudySpec) -> int | None:
    return None if spec.evaluation is None else spec.evaluation.folds


def describe(manifest: DataManifest, *, with_columns: bool) -> Iterator[str]:
    """Yield what a version holds, and the statistics of its first columns."""
    parts = ", ".join(f"{file.rows} {name}" for name, file in manifest.whole_parts.items())
    folds = f", {manifest.folds} folds" if manifest.folds else ""
    yield f"data {manifest.version}: {parts} rows of {len(manifest.features)} features{folds}"
    if not with_columns:
        return
    for column in manifest.columns[:COLUMNS]:
        yield f"  {column['name']} ({column['type']}): {', '.join(_statistics(column))}"
    if len(manifest.columns) > COLUMNS:
        rest = len(manifest.columns) - COLUMNS
        yield f"  and {rest} columns more: `tune data show {manifest.version}`"


def _statistics(column: Mapping[str, Any]) -> Iterator[str]:
    yield f"{column['count']} values"
    if column["missing"]:
        yield f"{column['missing']} missing"
    if "mean" in column:
        # Those that JSON lacks, such as `inf`, are texts.
        mean, deviation, low, high = (number(float(column[name])) for name in _MOMENTS)
        yield f"mean {mean}, deviation {deviation}"
        yield f"{low} to {high}"
    elif "top" in column:
        top = [f"{value} ({count})" for value, count in column["top"][:3]]
        yield f"{column['distinct']} distinct, most often {', '.join(top)}"


def _folder(record: StudyRecord) -> Path:
    return Path(record.source_dir or ".").resolve()


def _task(
    spec: StudySpec,
    folder: Path,
    store: DataStore,
    final: FinalRun | None = None,
    rows_of: str = "",
) -> PreparationTask:
    if spec.data is None:
        raise ValueError("the study has no data")
    folds, refit_of = _folds(spec), ""
    if final is not None:
        folds, refit_of = final.folds, final.version if _is_refitted(final) else ""
    return PreparationTask(spec.data, folder, store.address, spec.scoring, folds, refit_of, rows_of)


def _prepared(
    task: Task,
    store: DataStore,
    variables: Mapping[str, str],
    observer: Observer,
    interrupt: threading.Event,
) -> DataManifest | None:
    with _process(task, variables) as (connection, output):
        while not interrupt.is_set():
            try:
                if not connection.poll(_POLL_S):
                    continue
                message: dict[str, str] = json.loads(connection.recv_bytes())
            except (EOFError, OSError):
                raise DataError(_ended(output)) from None
            if "failure" in message:
                raise DataError(f"data: {message['failure']}{_tail(output)}")
            if "version" in message:
                return _published(store, message["version"])
            observer.on_event(ProgressEvent("phase", message["doing"]))
    return None


def _published(store: DataStore, version: str) -> DataManifest:
    """Return the manifest of a version that was just prepared.

    Raises:
        DataError: it is in another store.
    """
    if (manifest := store.find(version)) is None:
        raise DataError(
            f"data: the cluster has prepared version {version}, which is not in {store.address}: "
            "its nodes and this machine need one artifact store, see TUNE_ARTIFACTS"
        )
    return manifest


@contextmanager
def _process(task: Task, variables: Mapping[str, str]) -> Iterator[tuple[Connection, Path]]:
    """Start the process; yield the connection to it, and the file of its output."""
    main = _HERE if isinstance(task, PreparationTask) else _ON_CLUSTER
    with connected_process(main, variables) as (connection, scratch):
        output = scratch / "output"
        with suppress(BrokenPipeError):  # it has ended: reading from it shows that
            connection.send((task, output))
        yield connection, output


def _ended(output: Path) -> str:
    return (
        "data: the process that prepares it ended without a result, perhaps because memory ran out"
        f"{_tail(output)}"
    )


def _tail(output: Path) -> str:
    """Return the end of what the study's code has printed, as further lines."""
    try:
        text = output.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"\nIts output:\n{text[-_TAIL_CHARS:]}" if text else ""


def _record(
    database: Database,
    record: StudyRecord,
    manifest: DataManifest,
    store: DataStore,
) -> bool:
    """Record the version; refuse another one than that of the study's trials.

    Returns:
        True if the study has not used it before.

    Raises:
        DataError: it is another one.
    """
    storage = PgStorage(database)
    earlier = get_data(database, record.study_id)
    is_other = earlier is not None and earlier.version != manifest.version
    if is_other and earlier is not None and storage.get_n_trials(record.study_id):
        raise DataError(
            f"study {record.name!r} has trials on data of version {earlier.version}, and its source"
            f" now gives version {manifest.version}: their results could not be compared. "
            f"`tune data diff {earlier.version} {manifest.version}` shows what has changed. Restore"
            " the data, or give the study another name"
        )
    rows = {name: part.rows for name, part in manifest.whole_parts.items()}
    used = DataUsed(
        manifest.version,
        manifest.source,
        rows,
        len(manifest.features),
        tuple(manifest.warnings),
        manifest.test_rows,
        manifest.validation_ratio,
    )
    storage.set_study_system_attr(record.study_id, DATA_USED, asdict(used))
    store.name_study(record.name, manifest.version)
    return earlier is None or is_other
