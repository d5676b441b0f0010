"""Studies with a test part, and uses of it, without a training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from optuna.trial import TrialState

from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.study_records import StudyRecord
from tunesvc.queries.operations.data_lineage import DATA_USED, DataUsed
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
