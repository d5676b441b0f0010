"""Data about a person: everything that names a user, to hand it over or to erase it.

Results of studies stay: they are the project's. What named the user then names a pseudonym.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from tunesvc.db.people.accounts import ERASED, FORMER
from tunesvc.db.schema.service_tables import alert_targets, audit, tokens, users, watches
from tunesvc.db.schema.tables import metadata, trial_attrs
from tunesvc.errors import AccountNotFound

NAMES = frozenset(
    {"owner", "asked_by", "deleted_by", "submitted_by", "created_by", "user_name"},
)
"""Names of columns that hold a user's name. A test finds others."""
OTHER_OWNERS = frozenset({"leases.owner"})
"""Columns of these names that hold a process."""
STARTED_BY = "tunesvc:started_by"
"""User attribute of trials of final runs: the user that started them."""
_SECRETS = frozenset({"digest", "url"})
"""Columns that are not handed over: an address of alerts may hold a password."""


@dataclass(frozen=True, slots=True)
class PersonalRow:
    """A row that names a user."""

    table: str
    values: dict[str, Any]
    """Values by column, without secrets."""


def naming_columns() -> list[sa.Column[str]]:
    """Return all columns that hold a user's name, but for `users.name`."""
    return [
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if column.name in NAMES and f"{table.name}.{column.name}" not in OTHER_OWNERS
    ]


def personal_rows(connection: sa.Connection, name: str) -> Iterator[PersonalRow]:
    """Yield everything that names a user, table by table; of a study, its own row only."""
    yield from _rows(connection, users, users.c.name == name)
    own_id = sa.select(users.c.user_id).where(users.c.name == name).scalar_subquery()
    for table in metadata.sorted_tables:
        columns = [column for column in naming_columns() if column.table is table]
        conditions = [column == name for column in columns]
        if "user_id" in table.c and table is not users:
            conditions.append(table.c.user_id == own_id)
        if table is trial_attrs:
            conditions.append(_has_started(name))
        if table is audit:
            conditions.append(_is_mentioned(name))
        if conditions:
            yield from _rows(connection, table, sa.or_(*conditions))


def forget(connection: sa.Connection, name: str) -> str:
    """Erase a user: the account with its tokens and alerts, and the name everywhere else.

    Returns:
        The pseudonym that stands in its place.

    Raises:
        AccountNotFound: nothing names this user.
    """
    if all(_is_mention(row, name) for row in personal_rows(connection, name)):
        raise AccountNotFound(f"nothing here names a user {name!r}")
    user_id = connection.scalar(sa.select(users.c.user_id).where(users.c.name == name))
    next_id = sa.func.nextval(sa.func.pg_get_serial_sequence("users", "user_id"))
    pseudonym = f"{FORMER}{user_id or connection.scalar(sa.select(next_id))}"
    connection.execute(sa.delete(alert_targets).where(alert_targets.c.user_name == name))
    ended = sa.update(watches).where(watches.c.submitted_by == name)
    connection.execute(ended.values(look_at=None, problem=ERASED))
    connection.execute(sa.delete(tokens).where(tokens.c.user_id == user_id))
    connection.execute(sa.delete(users).where(users.c.name == name))
    mentioned = sa.func.regexp_replace(audit.c.subject, _mentions(name), rf"\1{pseudonym}", "g")
    connection.execute(sa.update(audit).where(_is_mentioned(name)).values(subject=mentioned))
    started = sa.update(trial_attrs).where(_has_started(name))
    connection.execute(started.values(value=json.dumps(pseudonym)))
    for column in naming_columns():
        change = sa.update(column.table).where(column == name)
        connection.execute(change.values({column.name: pseudonym}))
    return pseudonym


def _is_mention(row: PersonalRow, name: str) -> bool:
    """Return True for an entry of the audit log about the user by another one, such as this one."""
    return row.table == audit.name and row.values["user_name"] != name


def _has_started(name: str) -> sa.ColumnElement[bool]:
    """Return the condition on attributes of trials that this user started."""
    return sa.and_(
        trial_attrs.c.kind == "user",
        trial_attrs.c.name == STARTED_BY,
        trial_attrs.c.value == json.dumps(name),
    )


def _is_mentioned(name: str) -> sa.ColumnElement[bool]:
    return audit.c.subject.regexp_match(_mentions(name))


def _mentions(name: str) -> str:
    """Return the pattern of a user's name in the subjects of the audit log: a part of a path."""
    quoted = quote(name, safe="")
    forms = {name, quoted, quoted.replace(".", "%2E")}
    return f"(^|[/ ])({'|'.join(map(re.escape, sorted(forms)))})(?=$|/)"


def _rows(
    connection: sa.Connection,
    table: sa.Table,
    condition: sa.ColumnElement[bool],
) -> Iterator[PersonalRow]:
    shown = [column for column in table.columns if column.name not in _SECRETS]
    for row in connection.execute(sa.select(*shown).where(condition)):
        yield PersonalRow(table.name, dict(row._mapping))
