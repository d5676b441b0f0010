"""Studies with a test part, and uses of it, without a training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tests.support.specs import make_spec
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.study_records import StudyRecord
from tunesvc.execution.attempt.checkpoints import Checkpoints
from tunesvc.queries.operations.data_lineage import DATA_USED, DataUsed
from tunesvc.queries.operations.final_runs import FINAL
from tunesvc.runtime.finals import final_study

DATA = {"source": "shop.csv", "target": "bought"}


def searched(
    database: Database, name: str, version: str = "v1", test_rows: str = "rows", **spec: Any
) -> StudyRecord:
    """Store a study with two complete trials on data with a test part."""
    with database.engine.begin() as connection:
        record = study_records.create(connection, make_spec(name=name, data=DATA, **spec))
    storage = PgStorage(database)
    for value in (0.5, 0.25):
        complete(storage, record, storage.create_new_trial(record.study_id), value)
    used = DataUsed(version, "shop.csv", {"train": 60, "test": 40}, 3, (), test_rows)
    storage.set_study_system_attr(record.study_id, DATA_USED, asdict(used))
    return record


def complete(storage: PgStorage, record: StudyRecord, trial: int, value: float) -> None:
    storage.set_trial_state_values(trial, TrialState.RUNNING)
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [value])


def use_test_part(database: Database, record: StudyRecord, number: int, value: float = 0.3) -> None:
    """Do what `tune best --test` does, but for the training."""
    final = final_study.prepare(database, record, "test", number, started_by="ann").record
    storage = PgStorage(database)
    attrs = storage.get_study_system_attrs(record.study_id)[DATA_USED]
    storage.set_study_system_attr(final.study_id, DATA_USED, attrs)
    for trial in storage.get_all_trials(final.study_id, states=(TrialState.WAITING,)):
        complete(storage, final, trial_id(final.study_id, trial.number), value)


def submitted(database: Database, name: str, **spec: Any) -> StudyRecord:
    """Store a study with two complete trials that a server has run."""
    record = searched(database, name, version=name, test_rows=name, **spec)
    with database.engine.begin() as connection:
        submissions.submit(connection, record.study_id, submitted_by="ann")
        submissions.requeue(connection, record.study_id)
    _end(database, record.study_id)
    return record


def end_final_run(
    database: Database, name: str, number: int, value: float = 0.3, saved: Path | None = None
) -> None:
    """Do what a server does with a final run, but for the training: `saved` is its model."""
    storage = PgStorage(database)
    final_id = storage.get_study_id_from_name(name)
    trial = trial_id(final_id, number)
    attrs = storage.get_study_system_attrs(final_id)
    if attrs[FINAL]["kind"] == "test":
        searched_attrs = storage.get_study_system_attrs(attrs[FINAL]["study_id"])
        storage.set_study_system_attr(final_id, DATA_USED, searched_attrs[DATA_USED])
    if saved is not None:
        folder = saved.parent / "checkpoints" / str(final_id)
        kept = Checkpoints(folder, number, 1).save(saved, 0)
        row = {"trial": trial, "path": str(kept)}
        with database.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO attempts (trial_id, number, token, state, checkpoint) "
                    "VALUES (:trial, 1, 1, 'finished', :path)"
                ),
                row,
            )
    storage.set_trial_state_values(trial, TrialState.RUNNING)
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [value])
    _end(database, final_id)


def _end(database: Database, study_id: int) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE studies SET state = 'finished', ended_at = now() WHERE study_id = :id"),
            {"id": study_id},
        )
