"""Trials that have ended and whose checkpoints are in an object store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import attempts, studies, trials
from tunesvc.spec import StudySpec
from tunesvc.spec.goals import Goal
from tunesvc.spec.sections.execution_keys import Keep


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A trial that does not run, wait or pause."""

    number: int
    location: str
    """Step of its last recorded checkpoint."""
    keep: Keep
    goal: Goal
    """Value of the study's first metric."""


def list_ended_trials(database: Database, age: timedelta) -> tuple[EndedTrial, ...]:
    """Return the trials of studies that are not finished, or have been for less than `age`.

    Those of a population that is not finished are left out: copies may start from what they saved.
    """
    last = (
        sa.select(attempts.c.checkpoint)
        .where(attempts.c.trial_id == trials.c.trial_id, attempts.c.checkpoint.is_not(None))
        .order_by(attempts.c.number.desc())
        .limit(1)
        .correlate(trials)
        .scalar_subquery()
        .label("location")
    )
    is_recent = sa.or_(studies.c.ended_at.is_(None), studies.c.ended_at > sa.func.now() - age)
    query = (
        sa.select(trials.c.number, studies.c.spec, last)
        .join(studies, studies.c.study_id == trials.c.study_id)
        .where(
            trials.c.state.in_(["complete", "pruned", "fail"]),
            is_recent,
            last.like("%://%"),
            sa.or_(studies.c.ended_at.is_not(None), studies.c.spec["search"].as_string().is_(None)),
        )
        .order_by(trials.c.trial_id)
    )
    return tuple(_trial(row) for row in database.rows(query))


def _trial(row: Any) -> EndedTrial:
    spec = StudySpec.model_validate(row.spec)
    return EndedTrial(row.number, row.location, spec.keep, spec.directions[0])
