"""Leases: the right to write for a study, with an owner, a fencing token and an expiry.

Taking a lease increments its token; later writes under an older token are refused. So a coordinator
that was frozen and comes back does no harm, even if its clock is wrong: the expiry is by the
database's clock.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.tables import leases
from tunesvc.errors import StudyBusy

LEASE_S = 10.0
"""Duration of a lease without renewal."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken."""

    study_id: int
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Holder of a study's lease."""

    owner: str
    expires_at: datetime
    live: bool
    """True if it has not expired by the database's clock."""
    released: bool
    """True if it was released. If it ran out, its coordinator may just have lost its connection."""


def default_owner() -> str:
    """Return `host:pid`, which lets an operator find the process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def acquire(
    connection: sa.Connection,
    study_id: int,
    owner: str,
    ttl_s: float = LEASE_S,
) -> Lease:
    """Take the study's lease if it is free or has expired.

    Raises:
        StudyBusy: another owner holds it; the text names the owner.
    """
    until = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, ttl_s)
    values = {"owner": owner, "batch": 0, "expires_at": until, "released": False}
    insert = pg.insert(leases).values(study_id=study_id, token=1, **values)
    take = insert.on_conflict_do_update(
        index_elements=[leases.c.study_id],
        set_={**values, "token": leases.c.token + 1},
        where=leases.c.expires_at <= sa.func.now(),
    ).returning(leases.c.token)
    token = connection.execute(take).scalar()
    if token is None:
        held = holder(connection, study_id)
        owner = held.owner if held else "somebody"
        raise StudyBusy(busy_message(owner))
    return Lease(study_id, owner, token)


def busy_message(owner: str) -> str:
    """Return the error text for a study that `owner` runs."""
    return (
        f"{owner} is running this study now. Watch it with `tune show`, stop it with `tune stop`, "
        "or stand by for it with `tune resume --standby`."
    )


def release(connection: sa.Connection, lease: Lease) -> bool:
    """Let the lease expire now; return False when it was no longer ours. May be repeated."""
    free = sa.update(leases).where(
        leases.c.study_id == lease.study_id,
        leases.c.token == lease.token,
    )
    return connection.execute(free.values(expires_at=sa.func.now(), released=True)).rowcount == 1


def holder(connection: sa.Connection, study_id: int) -> LeaseHolder | None:
    """Return the last holder of the lease, or None if there never was one."""
    live = (leases.c.expires_at > sa.func.now()).label("live")
    query = sa.select(leases.c.owner, leases.c.expires_at, live, leases.c.released)
    row = connection.execute(query.where(leases.c.study_id == study_id)).one_or_none()
    if row is None:
        return None
    return LeaseHolder(row.owner, row.expires_at, row.live, row.released)
