"""Selected decisions of a study. A large study has hundreds of thousands, too many to read all."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import decisions as table
from tunesvc.queries.rows import DecisionRow
from tunesvc.queries.sql import DECISION_COLUMNS


def last_asks(
    database: Database,
    study_id: int,
    limit: int,
) -> tuple[DecisionRow, ...]:
    """Return the `ask` decisions of the newest trials, the oldest first."""
    query = (
        sa.select(*DECISION_COLUMNS)
        .where(
            table.c.study_id == study_id,
            table.c.trial_number.is_not(None),
            table.c.kind == "ask",
        )
        .order_by(table.c.trial_number.desc(), table.c.decision_id.desc())
        .limit(limit)
    )
    return _rows(database, query)[::-1]


def about_study(database: Database, study_id: int) -> tuple[DecisionRow, ...]:
    """Return the decisions about no single trial, in the order in which they were made."""
    query = sa.select(*DECISION_COLUMNS).where(
        table.c.study_id == study_id,
        table.c.trial_number.is_(None),
    )
    return _rows(database, query.order_by(table.c.decision_id))


def trials_with(database: Database, study_id: int, kind: str) -> tuple[int, ...]:
    """Return the numbers of the trials with a decision of this kind, in order."""
    number = table.c.trial_number
    query = (
        sa.select(number)
        .where(table.c.study_id == study_id, table.c.kind == kind, number.is_not(None))
        .distinct()
        .order_by(number)
    )
    return database.scalars(query)


def _rows(database: Database, query: sa.Select[Any]) -> tuple[DecisionRow, ...]:
    return tuple(DecisionRow(*row) for row in database.rows(query))
