"""Studies that servers run: submit one, list those that wait, and record why one could not start.

A submitted study waits while it should run and no coordinator holds its lease. So nothing is
recorded when a server takes it, or dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db import notifications
from tunesvc.db.schema.service_tables import snapshots, submissions, watches
from tunesvc.db.schema.states import Priority, StudyState
from tunesvc.db.schema.tables import leases, studies

FIRST_RETRY_S = 10.0
"""Time after which a study that could not be started is tried again; it doubles each time."""
LAST_RETRY_S = 600.0
_GRANTS_KEY = 0x736C6F7473  # "slots"


@dataclass(frozen=True, slots=True)
class Submission:
    """A study that servers run."""

    study_id: int
    snapshot: str | None
    """Digest of its folder's archive; None if all servers and workers see the folder itself."""
    priority: Priority
    submitted_by: str
    submitted_at: datetime
    queued_at: datetime
    """Since when it waits, or waited before it was taken."""
    problem: str
    """Reason why it could not be started the last time; empty if it could."""
    retry_at: datetime | None
    """It is not taken before; None if it may be taken now."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Git commit, Python and packages of the machine that submitted it."""


_COLUMNS = (
    submissions.c.study_id,
    submissions.c.snapshot,
    submissions.c.priority,
    submissions.c.submitted_by,
    submissions.c.submitted_at,
    submissions.c.queued_at,
    submissions.c.problem,
    submissions.c.retry_at,
    submissions.c.provenance,
)


def submit(
    connection: sa.Connection,
    study_id: int,
    *,
    snapshot: str | None = None,
    priority: Priority = Priority.NORMAL,
    submitted_by: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Put a study in the queue; one that was submitted before, with these values instead.

    Only a study that has not ended waits there.
    """
    row = {
        "snapshot": snapshot,
        "priority": priority,
        "submitted_by": submitted_by,
        "provenance": dict(provenance or {}),
    }
    insert = pg.insert(submissions).values(study_id=study_id, **row)
    again = row | {"submitted_at": sa.func.now(), "queued_at": sa.func.now()} | _WITHOUT_PROBLEM
    connection.execute(
        insert.on_conflict_do_update(index_elements=[submissions.c.study_id], set_=again),
    )
    _notify(connection, study_id)


def get(connection: sa.Connection, study_id: int) -> Submission | None:
    """Return a study's submission; None if servers leave the study alone."""
    query = sa.select(*_COLUMNS).where(submissions.c.study_id == study_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _submission(row)


def set_snapshot(
    connection: sa.Connection,
    study_id: int,
    snapshot: str | None,
    provenance: Mapping[str, Any],
) -> None:
    """Let servers run a submitted study from another snapshot when they take it the next time."""
    change = sa.update(submissions).where(submissions.c.study_id == study_id)
    connection.execute(change.values(snapshot=snapshot, provenance=dict(provenance)))


def set_priority(connection: sa.Connection, study_id: int, priority: Priority) -> bool:
    """Give a submitted study another priority; return False for another study."""
    change = sa.update(submissions).where(submissions.c.study_id == study_id)
    changed = connection.execute(change.values(priority=priority)).rowcount == 1
    _notify(connection, study_id)
    return changed


def requeue(connection: sa.Connection, study_id: int) -> bool:
    """Let servers take a submitted study at once; return False for another one.

    One that has ended or is paused runs again, at the end of the queue. One that waits already
    keeps its place.
    """
    change = sa.update(submissions).where(submissions.c.study_id == study_id)
    if connection.execute(change.values(**_WITHOUT_PROBLEM)).rowcount == 0:
        return False
    rested = sa.update(studies).where(
        studies.c.study_id == study_id,
        studies.c.state.not_in(_SHOULD_RUN),
    )
    rested = rested.values(state=StudyState.RUNNING, reason="", ended_at=None)
    if connection.execute(rested).rowcount:
        connection.execute(change.values(queued_at=sa.func.now()))
    _notify(connection, study_id)
    return True


def fail(connection: sa.Connection, study_id: int, problem: str) -> None:
    """Record why a study could not be started. It is tried again later, each time less soon."""
    delay_s = sa.func.least(FIRST_RETRY_S * sa.func.power(2, submissions.c.failures), LAST_RETRY_S)
    change = sa.update(submissions).where(submissions.c.study_id == study_id)
    connection.execute(
        change.values(
            problem=problem,
            failures=sa.func.least(submissions.c.failures + 1, 20),
            retry_at=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, delay_s),
        ),
    )
    notifications.notify(connection, study_id)


def succeed(connection: sa.Connection, study_id: int) -> None:
    """Forget the problem of a study that has been started. May be repeated."""
    change = sa.update(submissions).where(
        submissions.c.study_id == study_id,
        submissions.c.failures > 0,
    )
    connection.execute(change.values(**_WITHOUT_PROBLEM))


def _notify(connection: sa.Connection, study_id: int) -> None:
    notifications.notify(connection, study_id)
    notifications.notify(connection, study_id, notifications.QUEUE)


def lock_grants(connection: sa.Connection) -> None:
    """Wait until no other server shares out the cluster, until the transaction ends."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _GRANTS_KEY})


def grant(connection: sa.Connection, slots: Mapping[int, int]) -> None:
    """Record how many trials of each study may run at a time, by its id."""
    for study_id, count in slots.items():
        change = sa.update(submissions).where(submissions.c.study_id == study_id)
        connection.execute(change.where(submissions.c.slots != count).values(slots=count))


def waits() -> sa.ColumnElement[bool]:
    """Return the condition that a submitted study should run and has no coordinator."""
    is_held = sa.exists().where(
        leases.c.study_id == studies.c.study_id,
        leases.c.expires_at > sa.func.now(),
    )
    return sa.and_(studies.c.state.in_(_SHOULD_RUN), ~is_held.correlate(studies))


def may_be_taken() -> sa.ColumnElement[bool]:
    """Return the condition that a waiting study need not wait for its next try."""
    return sa.func.coalesce(submissions.c.retry_at <= sa.func.now(), True)


def queue_order() -> tuple[sa.ColumnElement[Any], ...]:
    """Return the order of the queue: the highest priority first, then the longest wait."""
    rank = sa.case({name: rank for rank, name in enumerate(Priority)}, value=submissions.c.priority)
    return (rank.desc(), submissions.c.queued_at.asc(), submissions.c.study_id.asc())


def _submission(row: Any) -> Submission:
    return Submission(**{**row._mapping, "priority": Priority(row.priority)})


_SHOULD_RUN = (StudyState.CREATED, StudyState.RUNNING)
_WITHOUT_PROBLEM: dict[str, Any] = {"problem": "", "failures": 0, "retry_at": None}


# --- snapshots of folders, which the artifact store holds ----------------------------------------


def record_snapshot(
    connection: sa.Connection,
    digest: str,
    *,
    bytes: int,
    files: int,
    created_by: str,
) -> None:
    """Record a snapshot that the artifact store holds.

    May be repeated: its time is renewed, so that no collector takes it before its study is stored.
    """
    row = {"digest": digest, "bytes": bytes, "files": files, "created_by": created_by}
    insert = pg.insert(snapshots).values(row)
    renewed = {"created_at": sa.func.now()}
    connection.execute(insert.on_conflict_do_update(index_elements=["digest"], set_=renewed))


def renew_snapshot(connection: sa.Connection, digest: str) -> int | None:
    """Renew a snapshot's time and return its size; None if none of that digest is recorded."""
    change = sa.update(snapshots).where(snapshots.c.digest == digest)
    renewed = change.values(created_at=sa.func.now()).returning(snapshots.c.bytes)
    size: int | None = connection.execute(renewed).scalar_one_or_none()
    return size


def remove_unused_snapshots(connection: sa.Connection, age: timedelta) -> Sequence[str]:
    """Remove the records of older snapshots without a study or a watch; return their digests."""
    is_used = sa.or_(
        sa.exists().where(submissions.c.snapshot == snapshots.c.digest),
        sa.exists().where(watches.c.snapshot == snapshots.c.digest),
    )
    unused = sa.delete(snapshots).where(~is_used, snapshots.c.created_at < sa.func.now() - age)
    return connection.execute(unused.returning(snapshots.c.digest)).scalars().all()
