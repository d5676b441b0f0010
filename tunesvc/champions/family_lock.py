"""The lock of a family: one process at a time watches it or makes its deliveries.

It is an advisory lock of Postgres on a connection of its own, so it ends with its process. If that
connection is lost meanwhile, a second process may begin; leases of studies and the unique follower
of a champion then keep the two from doing anything twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.lease import default_owner
from tunesvc.errors import StudyBusy

_LOCK_SPACE = 0x7765
"""Keeps these locks apart from other advisory locks."""


@contextmanager
def locked_family(database: Database, family: str) -> Iterator[None]:
    """Hold the lock of a family.

    Raises:
        StudyBusy: another process holds it; the text names it.
    """
    key = sa.func.hashtextextended(family, _LOCK_SPACE)
    with database.engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        name = sa.text("SELECT set_config('application_name', :name, false)")
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
            raise StudyBusy(
                f"{_holder(connection, key)} watches {family!r} now, or delivers its promotions: "
                "one does so at a time"
            )
        try:
            connection.execute(name, {"name": _application(default_owner())})
            yield
        finally:
            with suppress(sa.exc.DBAPIError):  # the lock ends with the connection
                connection.execute(name, {"name": "tunesvc"})
                connection.scalar(sa.select(sa.func.pg_advisory_unlock(key)))


_PREFIX = "tunesvc watch "


def _application(owner: str) -> str:
    return f"{_PREFIX}{owner}"[:63]  # Postgres cuts longer ones


def _holder(connection: sa.Connection, key: sa.ColumnElement[int]) -> str:
    """Return the process that holds a lock, `host:pid`."""
    value = int(connection.scalar(sa.select(key)) or 0)
    halves = {"high": (value >> 32) & 0xFFFFFFFF, "low": value & 0xFFFFFFFF}
    query = sa.text(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
        "AND l.classid::bigint = :high AND l.objid::bigint = :low"
    )
    found = connection.scalar(query, halves)
    return str(found).removeprefix(_PREFIX) if found else "another process"
