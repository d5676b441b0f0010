"""Snapshots of folders by digest: what the artifact store holds for studies, and what for none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.service_tables import snapshots, submissions


def record(
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


def renew(connection: sa.Connection, digest: str) -> int | None:
    """Renew a snapshot's time and return its size; None if none of that digest is recorded."""
    change = sa.update(snapshots).where(snapshots.c.digest == digest)
    renewed = change.values(created_at=sa.func.now()).returning(snapshots.c.bytes)
    size: int | None = connection.execute(renewed).scalar_one_or_none()
    return size


def remove_unused(connection: sa.Connection, age: timedelta) -> Sequence[str]:
    """Remove the records of snapshots without a study that are older; return their digests."""
    is_used = sa.exists().where(submissions.c.snapshot == snapshots.c.digest)
    unused = sa.delete(snapshots).where(~is_used, snapshots.c.created_at < sa.func.now() - age)
    return connection.execute(unused.returning(snapshots.c.digest)).scalars().all()
