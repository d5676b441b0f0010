"""Final runs of studies: `NAME:test` and `NAME:apply`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import from_optuna_time
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.people.personal_data import STARTED_BY
from tunesvc.db.schema.tables import study_attrs

Kind = Literal["test", "apply"]
FINAL = "tunesvc:final"
"""System attribute of a study that is a final run: the fields of `FinalRun`."""
FINAL_STUDY: Mapping[Kind, str] = {"test": "tunesvc:final:test", "apply": "tunesvc:final:apply"}
"""System attributes of a study that was searched: the id of its final run."""
OF_TRIAL = "of_trial"
"""User attribute of its trials: the number of the trial whose parameters they have."""
BY = STARTED_BY
"""User attribute of its trials: the user that started it."""


@dataclass(frozen=True, slots=True)
class FinalRun:
    """A final run's purpose, and the study that it belongs to."""

    kind: Kind
    study_id: int
    """The study that was searched."""
    study: str
    """Its name."""
    version: str
    """Version of its data; empty without data."""
    folds: int | None = None
    """Number of its folds."""
    test_rows: str = ""
    """Digest of the rows of its test part; empty where it is not known."""
    is_scored: bool = False
    """True with `scoring`: only its results have seen the test part, and its reports have not."""

    def is_on(self, version: str, test_rows: str) -> bool:
        """Return True if it has the test part of a version, or one with the same rows."""
        return self.version == version or (bool(test_rows) and self.test_rows == test_rows)


def get_final_run(database: Database, study_id: int) -> FinalRun | None:
    """Return what a study is the final run of; None if it is none."""
    value = _system_attr(database, study_id, FINAL)
    return None if value is None else FinalRun(**value)


def find_final_study(database: Database, study_id: int, kind: Kind) -> int | None:
    """Return the id of a study's final run; None if there is none."""
    final_id: int | None = _system_attr(database, study_id, FINAL_STUDY[kind])
    run = None if final_id is None else get_final_run(database, final_id)
    return None if run is None or run.study_id != study_id else final_id


def complete_trials(database: Database, study_id: int) -> list[FrozenTrial]:
    """Return the trials of a final run that have a value, the oldest first."""
    states = (TrialState.COMPLETE,)
    found = PgStorage(database).get_all_trials(study_id, deepcopy=False, states=states)
    return [trial for trial in found if OF_TRIAL in trial.user_attrs]


def end_of(trial: FrozenTrial) -> datetime:
    """Return the time at which a complete trial ended."""
    ended = from_optuna_time(trial.datetime_complete)
    if ended is None:
        raise ValueError(f"trial {trial.number} is complete, and has no time of its end")
    return ended


def other_scores(trial: FrozenTrial) -> dict[str, float]:
    """Return the metrics of a trial of a final run beside its objectives."""
    attrs = {name: value for name, value in trial.user_attrs.items() if name != OF_TRIAL}
    return {name: value for name, value in attrs.items() if isinstance(value, float | int)}


def _system_attr(database: Database, study_id: int, name: str) -> Any:
    query = sa.select(study_attrs.c.value).where(
        study_attrs.c.study_id == study_id,
        study_attrs.c.kind == "system",
        study_attrs.c.name == name,
    )
    row = next(iter(database.rows(query)), None)
    return None if row is None else json.loads(row.value)
