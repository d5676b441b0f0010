"""Stores what a final run has trained as the study's model, in the artifact store."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import tempfile
from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import unpack_into
from tunesvc.data.prepared_data import TEST
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import ArtifactTooLarge, TuneError
from tunesvc.instrumentation import failpoints
from tunesvc.models.model_store import METADATA, ModelMetadata, ModelStore, write_metadata
from tunesvc.preparation.fitted_preparation import FILES, write_preparation
from tunesvc.queries.checkpoint_files import (
    KeptCheckpoint,
    find_best_checkpoint,
    list_checkpoints,
    open_checkpoint,
)
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.operations.final_models import MODEL, ModelRecord, get_model_record
from tunesvc.queries.operations.final_runs import (
    BY,
    OF_TRIAL,
    complete_trials,
    end_of,
    get_final_run,
    other_scores,
)
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.attempt_events import list_attempts
from tunesvc.util.formatting import size


def store_model(
    database: Database,
    final_id: int,
    number: int,
    study_key: str,
    *,
    replace: bool,
    bytes_max: int | None = None,
) -> ModelMetadata:
    """Store the model of a complete trial of a final run, with its preparation. May be repeated.

    Copies files, and unpickles none. That it is stored is recorded with the final run.

    Args:
        database: where the final run is stored.
        final_id: the final run.
        number: of its trial.
        study_key: key of the study that was searched.
        replace: also if another study of the same name has a model.
        bytes_max: the largest model that is taken.

    Raises:
        TuneError: the trial has saved nothing.
        DataError: another study of the same name has a model, and `replace` is off.
        ArtifactTooLarge: the model is larger than `bytes_max`.
    """
    view = get_study_by_id(database, final_id)
    newest = _newest_checkpoint(database, view, number)
    if bytes_max is not None and newest.bytes > bytes_max:
        raise ArtifactTooLarge(
            f"the model of {view.name!r} has {size(newest.bytes)}, and a server stores at "
            f"most {size(bytes_max)}: save less, or copy it with `tune artifacts "
            f"{view.name} {number} --to DIR`"
        )
    if Path(newest.path).name in {METADATA, *FILES}:
        raise TuneError(
            f"the model of {view.name!r} is saved as {Path(newest.path).name!r}, where tunesvc "
            "stores its own file: give it another name"
        )
    archive = open_checkpoint(database, view, number, newest.checkpoint).archive()
    with tempfile.TemporaryDirectory(prefix="tunesvc-model-") as scratch:
        folder = Path(scratch, "model")
        file = unpack_into(archive, folder).name
        made = _metadata(database, view, number, file)
        metadata = dataclasses.replace(made, study_key=study_key)
        write_metadata(folder, metadata)
        if metadata.preparation_version:
            write_preparation(folder, metadata.preparation_version)
        ModelStore.open().put(folder, metadata, replace=replace)
    failpoints.reach("stored")
    write_record(database, final_id, ModelRecord(number))
    return metadata


def _newest_checkpoint(database: Database, view: StudyView, number: int) -> KeptCheckpoint:
    """Return what the training ended with.

    Raises:
        TuneError: the trial has saved nothing, or this machine does not have it.
    """
    saved = list_checkpoints(database, view, number)
    if saved:
        return saved[-1]
    attempts = list_attempts(database, view.study_id, numbers=[number])
    if any(attempt.checkpoint for attempt in attempts):
        find_best_checkpoint(database, view, number)  # says where it was
    raise TuneError(
        f"the objective of {view.name!r} has run and saved no model: return the fitted model, "
        "with `evaluation: {scoring: ...}`, or save it with `trial.checkpoint(path)`"
    )


def write_record(database: Database, final_id: int, record: ModelRecord) -> None:
    """Record with a final run that a model is stored, or why it could not be.

    An error does not replace the record of a stored model, which another server has made.

    Raises:
        StudyNotFound: the final run was deleted.
    """
    with study_records.locked(database, final_id) as connection:
        kept = get_model_record(database, final_id)
        is_stored = kept is not None and not kept.error and kept.trial >= record.trial
        if not (record.error and is_stored):
            fields = dataclasses.asdict(record)
            study_records.write_system_attr(connection, final_id, MODEL, fields)


def write_folder(study: str, out: Path) -> Path:
    """Copy the stored model of a study into a folder, which must be new or empty; return it.

    Raises:
        TuneError: the folder has files.
        DataError: the study has no model.
    """
    require_empty(out)
    shutil.copytree(ModelStore.open().fetch(study), out, dirs_exist_ok=True)
    return out


def require_empty(out: Path) -> None:
    """Refuse a folder with files, before a model is trained for it.

    Raises:
        TuneError: it has files, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TuneError(f"{out} is there already: remove it, or name another folder")


def _metadata(database: Database, view: StudyView, number: int, file: str) -> ModelMetadata:
    run = get_final_run(database, view.study_id)
    trial = next(one for one in complete_trials(database, view.study_id) if one.number == number)
    if run is None or view.spec is None:
        raise ValueError(f"study {view.name!r} is no final run")
    data = get_data(database, view.study_id)
    is_tested = data is not None and TEST in data.rows
    original = PgStorage(database).get_all_trials(run.study_id, deepcopy=False)
    objective, of_trial = view.objectives[0], trial.user_attrs[OF_TRIAL]
    return ModelMetadata(
        study=run.study,
        trial=of_trial,
        params={**view.spec.constants, **trial.params},
        metric=objective.name,
        goal=objective.goal,
        validation=original[of_trial].values[0] if of_trial < len(original) else None,
        test=trial.values[0] if is_tested else None,
        scores=other_scores(trial) if is_tested else {},
        data_version=run.version,
        preparation_version="" if data is None else data.version,
        trained_at=end_of(trial).isoformat(),
        trained_by=str(trial.user_attrs.get(BY, "")),
        file=file,
        tunesvc=importlib.metadata.version("tunesvc"),
    )
