"""What has changed, cheaply: a text per study that differs after each commit of its coordinator and its end."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import leases, studies, trials


def change_tokens(database: Database) -> dict[int, str]:
    """One text per study, of all studies. Trials that end through Optuna's API alone do not change it."""
    query = sa.select(studies.c.study_id, _written()).outerjoin(leases, leases.c.study_id == studies.c.study_id)
    with database.engine.connect() as connection:
        return {row.study_id: row.written for row in connection.execute(query)}


def fingerprint(database: Database, study_id: int) -> str:
    """One study's text, by which a copy of anything that was read of it can be known to be outdated."""
    ended = (
        sa.select(sa.func.count())
        .where(trials.c.study_id == study_id, trials.c.state.in_(["complete", "pruned", "fail"]))
        .scalar_subquery()
    )
    query = (
        sa.select(_written(), ended.label("ended"))
        .select_from(studies)
        .outerjoin(leases, leases.c.study_id == studies.c.study_id)
        .where(studies.c.study_id == study_id)
    )
    with database.engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return "" if row is None else f"{row.written}:{row.ended}"


def _written() -> sa.Label[Any]:
    """The lease's batch number grows with every commit, its token with every change of hands."""
    is_held = leases.c.expires_at > sa.func.now()
    parts = (studies.c.study_id, studies.c.state, studies.c.next_number, leases.c.token, leases.c.batch, is_held)
    return sa.func.concat_ws(":", *parts).label("written")
