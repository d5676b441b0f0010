"""Decisions of a study by what they are about: a large one has hundreds of thousands, and nobody wants them all."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import decisions as table
from tunesvc.queries.rows import DecisionRow
from tunesvc.queries.sql import DECISION_COLUMNS


def last_asks(database: Database, study_id: int, limit: int) -> tuple[DecisionRow, ...]:
    """Why the newest trials were proposed, in their order."""
    query = (
        sa.select(*DECISION_COLUMNS)
        .where(table.c.study_id == study_id, table.c.trial_number.is_not(None), table.c.kind == "ask")
        .order_by(table.c.trial_number.desc(), table.c.decision_id.desc())
        .limit(limit)
    )
    return _rows(database, query)[::-1]


def about_study(database: Database, study_id: int) -> tuple[DecisionRow, ...]:
    """Those that are about no single trial, in the order in which they were taken."""
    query = sa.select(*DECISION_COLUMNS).where(table.c.study_id == study_id, table.c.trial_number.is_(None))
    return _rows(database, query.order_by(table.c.decision_id))


def trials_with(database: Database, study_id: int, kind: str) -> tuple[int, ...]:
    """Numbers of the trials that a decision of this kind was taken about, in order."""
    query = sa.select(table.c.trial_number).where(table.c.study_id == study_id, table.c.kind == kind).distinct()
    with database.engine.connect() as connection:
        found = connection.execute(query.where(table.c.trial_number.is_not(None)).order_by(table.c.trial_number))
        return tuple(found.scalars())


def _rows(database: Database, query: sa.Select[Any]) -> tuple[DecisionRow, ...]:
    with database.engine.connect() as connection:
        return tuple(DecisionRow(*row) for row in connection.execute(query))
