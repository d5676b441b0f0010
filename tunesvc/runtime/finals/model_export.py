"""Stores what a final run has trained as the study's model, in the artifact store."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import tempfile
from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import unpack_into
from tunesvc.data.prepared_data import TEST
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import TuneError
from tunesvc.models.model_store import ModelMetadata, ModelStore, write_metadata
from tunesvc.preparation.fitted_preparation import write_preparation
from tunesvc.queries.checkpoint_files import list_checkpoints, open_checkpoint
from tunesvc.queries.operations.data_lineage import get_data
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


def store_model(
    database: Database, final_id: int, number: int, study_key: str, *, replace: bool
) -> ModelMetadata:
    """Store the model of a complete trial of a final run, with its preparation. May be repeated.

    Args:
        database: where the final run is stored.
        final_id: the final run.
        number: of its trial.
        study_key: key of the study that was searched.
        replace: also if another study of the same name has a model.

    Raises:
        TuneError: the trial has saved nothing.
        DataError: another study of the same name has a model, and `replace` is off.
    """
    view = get_study_by_id(database, final_id)
    saved = list_checkpoints(database, view, number)
    if not saved:
        raise TuneError(
            f"the objective of {view.name!r} has run and saved no model: return the fitted model, "
            "with `evaluation: {scoring: ...}`, or save it with `trial.checkpoint(path)`"
        )
    newest = saved[-1]  # the last one is what the training ended with
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
    return metadata


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
