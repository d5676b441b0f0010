"""Change tokens: a text per study that differs after each commit of its coordinator.

Comparing tokens is much cheaper than reading a study again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import commands, leases, studies, trials


def change_tokens(database: Database) -> dict[int, str]:
    """Return the change token of every study.

    Trials that end through Optuna's API alone do not change it; `fingerprint` counts them too.
    """
    lease = leases.c.study_id == studies.c.study_id
    query = sa.select(studies.c.study_id, _token()).outerjoin(leases, lease)
    return {row.study_id: row.change_token for row in database.rows(query)}


def fingerprint(database: Database, study_id: int) -> str:
    """Return a text that changes whenever a cached reading of the study is outdated."""
    finished = (
        sa.select(sa.func.count())
        .where(
            trials.c.study_id == study_id,
            trials.c.state.in_(["complete", "pruned", "fail"]),
        )
        .scalar_subquery()
    )
    # Notes and tags are written without the coordinator, and recorded among the commands.
    asked = (
        sa.select(sa.func.max(commands.c.command_id))
        .where(commands.c.study_id == study_id)
        .scalar_subquery()
    )
    query = (
        sa.select(_token(), finished.label("finished"), asked.label("asked"))
        .select_from(studies)
        .outerjoin(leases, leases.c.study_id == studies.c.study_id)
        .where(studies.c.study_id == study_id)
    )
    rows = database.rows(query)
    if not rows:
        return ""
    return f"{rows[0].change_token}:{rows[0].finished}:{rows[0].asked}"


def _token() -> sa.Label[Any]:
    # The lease's batch number grows with every commit, its fencing token with every new owner.
    is_held = leases.c.expires_at > sa.func.now()
    study = (studies.c.study_id, studies.c.state, studies.c.next_number)
    lease = (leases.c.token, leases.c.batch, is_held)
    return sa.func.concat_ws(":", *study, *lease).label("change_token")
