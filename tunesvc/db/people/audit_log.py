"""Writes the audit log: who changed or tried what, from where, and what came of it.

An entry is committed before its request is carried out, and completed with the outcome. So nothing
is done without an entry; one without an outcome belongs to a server that died.
"""

from __future__ import annotations

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.service_tables import audit

MAX_SUBJECT = 500


def begin(
    database: Database,
    user_name: str,
    action: str,
    subject: str = "",
    *,
    address: str = "",
    token_id: int | None = None,
    outcome: int | None = None,
) -> int:
    """Write an entry; return its id."""
    row = {
        "user_name": user_name,
        "token_id": token_id,
        "address": address,
        "action": action,
        "subject": subject.replace("\0", "")[:MAX_SUBJECT],
        "outcome": outcome,
    }
    with database.engine.begin() as connection:
        insert = sa.insert(audit).values(row).returning(audit.c.audit_id)
        audit_id: int = connection.execute(insert).scalar_one()
    return audit_id


def complete(database: Database, audit_id: int, outcome: int) -> None:
    """Record what came of it, as a status of HTTP. May be repeated."""
    change = sa.update(audit).where(audit.c.audit_id == audit_id).values(outcome=outcome)
    with database.engine.begin() as connection:
        connection.execute(change)
