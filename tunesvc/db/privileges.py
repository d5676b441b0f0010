"""Privileges of Postgres roles: one that runs the service, and one that only reads.

The owner of the tables changes the schema. A server that is broken into as the service's role can
delete rows, but no tables; and a reader sees no secret, not even a digest of one.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

from tunesvc.db.engine.database import Database, checked_name
from tunesvc.db.schema import service_tables
from tunesvc.db.schema.migrations import VERSION_TABLE
from tunesvc.errors import DatabaseError

SECRET_TABLES = frozenset({"tokens", "alert_targets", "answers"})
"""Tables with secrets, which a reader does not see."""


class RoleKind(StrEnum):
    """Purpose of a Postgres role."""

    SERVICE = "service"
    """Runs servers and commands; cannot change the schema."""
    READER = "reader"
    """Reads studies, for dashboards and analyses of others."""


def grant_privileges(database: Database, role: str, kind: RoleKind) -> None:
    """Give a role the privileges of its kind, and take all others. Run again after an upgrade.

    Raises:
        DatabaseError: there is no such role, or the caller does not own the tables.
    """
    checked_name(role, "the role's name")
    try:
        with database.engine.begin() as connection:
            quoted = connection.dialect.identifier_preparer.quote_identifier(role)
            for statement in _statements(quoted, kind):
                connection.execute(sa.text(statement))
    except sa.exc.ProgrammingError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise DatabaseError(
            f"the privileges of {role!r} cannot be changed: {reason}. "
            f"Make the role first (`CREATE ROLE {role} LOGIN PASSWORD ...`), and connect as the "
            "owner of the tables"
        ) from error


def _statements(role: str, kind: RoleKind) -> list[str]:
    tables = [*sorted(service_tables.metadata.tables), VERSION_TABLE]
    statements = [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
    ]
    if kind is RoleKind.READER:
        readable = ", ".join(name for name in tables if name not in SECRET_TABLES)
        return [*statements, f"GRANT SELECT ON {readable} TO {role}"]
    written = ", ".join(name for name in tables if name != VERSION_TABLE)
    return [
        *statements,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {written} TO {role}",
        f"GRANT SELECT ON {VERSION_TABLE} TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ]
