"""Reads the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.service_tables import audit
from tunesvc.queries.rows import from_row
from tunesvc.util.characters import storable

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A request that changed something, or tried to."""

    audit_id: int
    at: datetime
    user_name: str
    """Empty for a failed attempt to sign in."""
    token_id: int | None
    """Token or session that it used."""
    address: str
    action: str
    subject: str
    outcome: int | None
    """Status of the answer; None while it is carried out, or if the server died meanwhile."""

    @property
    def was_refused(self) -> bool:
        """True if it changed nothing."""
        return self.outcome is not None and self.outcome >= 400


def list_audit(
    database: Database,
    *,
    user_name: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> tuple[AuditEntry, ...]:
    """Return entries, the newest first, of one user or of all.

    Args:
        database: Database to read.
        user_name: None for all users.
        before: `audit_id` of the last entry of the previous page.
        limit: Most entries to return.
    """
    query = sa.select(audit).order_by(audit.c.audit_id.desc()).limit(limit)
    if user_name is not None:
        query = query.where(audit.c.user_name == storable(user_name))
    if before is not None:
        query = query.where(audit.c.audit_id < before)
    return tuple(from_row(AuditEntry, row) for row in database.rows(query))


def iterate_audit(database: Database, user_name: str | None = None) -> Iterator[AuditEntry]:
    """Yield all entries, the newest first, without loading them at once."""
    before = None
    while entries := list_audit(database, user_name=user_name, before=before, limit=_PAGE):
        yield from entries
        before = entries[-1].audit_id
