"""Records of the models of final runs: which trial's model is in the artifact store."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.service_tables import submissions
from tunesvc.db.schema.tables import study_attrs, trials
from tunesvc.queries.operations.final_runs import (
    FINAL,
    OF_TRIAL,
    complete_trials,
    find_final_study,
)

MODEL = "tunesvc:model"
"""System attribute of a final run: the fields of `ModelRecord`."""
REPLACES = "tunesvc:replaces"
"""System attribute of its trials: true if the model of another study of that name is replaced."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model of a final run's trial: it is stored, or could not be."""

    trial: int
    """Number of the trial of the final run."""
    error: str = ""
    """Name of an exception of `tunesvc.errors`; empty if the model is stored."""
    message: str = ""
    """Text of the exception."""
    is_retried: bool = False
    """True if a server tries again."""
    since_s: float = 0.0
    """First time of this error, in seconds since 1970."""


def get_model_record(database: Database, final_id: int) -> ModelRecord | None:
    """Return the newest record of a final run; None if there is none."""
    query = sa.select(study_attrs.c.value).where(
        study_attrs.c.study_id == final_id,
        study_attrs.c.kind == "system",
        study_attrs.c.name == MODEL,
    )
    row = next(iter(database.rows(query)), None)
    return None if row is None else ModelRecord(**json.loads(row.value))


def find_modelled_trial(database: Database, study_id: int) -> int | None:
    """Return the number of the trial of a study whose model is stored; None without one."""
    final_id = find_final_study(database, study_id, "apply")
    record = None if final_id is None else get_model_record(database, final_id)
    if final_id is None or record is None or record.error:
        return None
    trained = complete_trials(database, final_id)
    return next((one.user_attrs[OF_TRIAL] for one in trained if one.number == record.trial), None)


def list_unstored_models(database: Database) -> tuple[int, ...]:
    """Return the submitted final runs with a complete trial whose model is to be stored."""
    record = study_attrs.alias("record")
    fields = sa.cast(record.c.value, pg.JSONB)
    newest = (
        sa.select(sa.func.max(trials.c.number))
        .where(trials.c.study_id == study_attrs.c.study_id, trials.c.state == "complete")
        .correlate(study_attrs)
        .scalar_subquery()
    )
    is_due = sa.or_(
        record.c.value.is_(None),
        fields["trial"].as_integer() < newest,
        fields["is_retried"].as_boolean(),
    )
    query = (
        sa.select(study_attrs.c.study_id)
        .join(submissions, submissions.c.study_id == study_attrs.c.study_id)
        .outerjoin(
            record,
            sa.and_(
                record.c.study_id == study_attrs.c.study_id,
                record.c.kind == "system",
                record.c.name == MODEL,
            ),
        )
        .where(study_attrs.c.kind == "system", study_attrs.c.name == FINAL)
        .where(sa.cast(study_attrs.c.value, pg.JSONB)["kind"].astext == "apply")
        .where(newest.is_not(None), is_due)
        .order_by(study_attrs.c.study_id)
    )
    return tuple(row.study_id for row in database.rows(query))
