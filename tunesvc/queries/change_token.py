"""Change tokens: a text per study that differs after each commit of its coordinator.

Comparing tokens is much cheaper than reading a study again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.service_tables import submissions
from tunesvc.db.schema.tables import commands, leases, studies, trials
from tunesvc.db.submissions import queue_order, waits


def change_tokens(database: Database) -> dict[int, str]:
    """Return the change token of every study.

    Trials that end through Optuna's API alone do not change it; `fingerprint` counts them too.
    """
    lease = leases.c.study_id == studies.c.study_id
    query = sa.select(studies.c.study_id, _token()).outerjoin(leases, lease)
    return {row.study_id: row.change_token for row in database.rows(query)}


def fingerprint(database: Database, study_id: int) -> str:
    """Return a text that changes whenever a cached reading of the study is outdated."""
    rows = database.rows(_FINGERPRINT, {"study": study_id})
    return ":".join(map(str, rows[0][:-1])) if rows else ""


def fingerprint_if_whole(database: Database, study_id: int) -> str:
    """Return the fingerprint; empty if the study also changes without a trace.

    Optuna's own processes that run trials of a study report without one.
    """
    rows = database.rows(_FINGERPRINT, {"study": study_id})
    return ":".join(map(str, rows[0][:-1])) if rows and not rows[0][-1] else ""


def _submission(study_id: sa.ColumnElement[int]) -> sa.ScalarSelect[Any]:
    """Select what changes while a study waits for a server, its place in the queue included."""
    position = sa.func.row_number().over(order_by=queue_order()).label("position")
    queue = (
        sa.select(submissions.c.study_id, position)
        .join(studies, studies.c.study_id == submissions.c.study_id)
        .where(waits())
        .subquery("queue")
    )
    place = sa.select(queue.c.position).where(queue.c.study_id == study_id).scalar_subquery()
    columns = submissions.c
    # Only a study that waits has a place to look for.
    own = studies.alias("own")
    is_held = sa.exists().where(
        leases.c.study_id == study_id,
        leases.c.expires_at > sa.func.now(),
    )
    waiting = sa.and_(~is_held, own.c.state.in_(["created", "running"]))
    parts = (columns.priority, columns.queued_at, columns.problem, columns.retry_at, columns.slots)
    return (
        sa.select(sa.func.concat_ws(":", *parts, sa.case((waiting, place))))
        .join(own, own.c.study_id == columns.study_id)
        .where(columns.study_id == study_id)
        .scalar_subquery()
    )


def _token() -> sa.Label[Any]:
    # The lease's batch number grows with every commit, its fencing token with every new owner.
    is_held = leases.c.expires_at > sa.func.now()
    study = (studies.c.study_id, studies.c.state, studies.c.next_number)
    lease = (leases.c.token, leases.c.batch, is_held)
    return sa.func.concat_ws(":", *study, *lease).label("change_token")


def _fingerprint(study_id: sa.ColumnElement[int]) -> sa.Select[Any]:
    own = trials.c.study_id == study_id
    finished = sa.select(sa.func.count()).where(
        own, trials.c.state.in_(["complete", "pruned", "fail"])
    )
    # Notes and tags are written without the coordinator, and recorded among the commands.
    asked = sa.select(sa.func.max(commands.c.command_id)).where(commands.c.study_id == study_id)
    runs_elsewhere = sa.and_(
        studies.c.spec.is_(None), sa.exists().where(own, trials.c.state == "running")
    )
    return (
        sa.select(
            _token(),
            finished.scalar_subquery(),
            asked.scalar_subquery(),
            _submission(study_id),
            runs_elsewhere,
        )
        .select_from(studies)
        .outerjoin(leases, leases.c.study_id == studies.c.study_id)
        .where(studies.c.study_id == study_id)
    )


_FINGERPRINT = _fingerprint(sa.bindparam("study", type_=sa.BigInteger))
"""Built once: building it takes longer than running it."""
