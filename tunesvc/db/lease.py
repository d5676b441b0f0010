"""The right to write for a study: an owner, a token that only grows, an expiry by the database's clock.

Whoever takes a lease raises its token; every later write under the old token is refused. So a coordinator that was
frozen and comes back cannot harm, however wrong its own clock is.
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
"""How long a lease lasts without renewal."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was taken."""

    study_id: int
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a study's lease."""

    owner: str
    expires_at: datetime
    live: bool
    """Whether it has not expired, by the database's clock."""
    released: bool
    """Whether it was given back. One that only ran out may be somebody's who is cut off from the database."""


def default_owner() -> str:
    """`host:pid`, so that a person finds the process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def acquire(connection: sa.Connection, study_id: int, owner: str, ttl_s: float = LEASE_S) -> Lease:
    """Take the study's lease if it is free or has expired.

    Raises:
        StudyBusy: somebody else holds it; the text says who, and until when.
    """
    until = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, ttl_s)
    fresh = pg.insert(leases).values(study_id=study_id, owner=owner, token=1, batch=0, expires_at=until, released=False)
    take = fresh.on_conflict_do_update(
        index_elements=[leases.c.study_id],
        set_={"owner": owner, "token": leases.c.token + 1, "batch": 0, "expires_at": until, "released": False},
        where=leases.c.expires_at <= sa.func.now(),
    ).returning(leases.c.token)
    token = connection.execute(take).scalar()
    if token is None:
        held = holder(connection, study_id)
        owner = held.owner if held else "somebody"
        raise StudyBusy(busy_message(owner))
    return Lease(study_id, owner, token)


def busy_message(owner: str) -> str:
    """What to tell somebody who wants a study that `owner` runs."""
    return (
        f"{owner} is running this study now. Watch it with `tune show`, stop it with `tune stop`, "
        "or stand by for it with `tune resume --standby`."
    )


def release(connection: sa.Connection, lease: Lease) -> bool:
    """Let the lease expire now; False when it was no longer ours. May be repeated."""
    free = sa.update(leases).where(leases.c.study_id == lease.study_id, leases.c.token == lease.token)
    return connection.execute(free.values(expires_at=sa.func.now(), released=True)).rowcount == 1


def holder(connection: sa.Connection, study_id: int) -> LeaseHolder | None:
    """Who held the lease last, or None when nobody ever did."""
    live = (leases.c.expires_at > sa.func.now()).label("live")
    row = connection.execute(
        sa.select(leases.c.owner, leases.c.expires_at, live, leases.c.released).where(leases.c.study_id == study_id)
    ).one_or_none()
    return None if row is None else LeaseHolder(row.owner, row.expires_at, row.live, row.released)
