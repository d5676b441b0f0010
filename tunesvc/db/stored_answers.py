"""Answers to requests with an idempotency key, so that a repeated request gets the first answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine import json_numbers
from tunesvc.db.schema.service_tables import answers

KEPT: Final = timedelta(days=1)
"""Time for which an answer is kept."""
_COMMAND = "command"
ABANDONED: Final = timedelta(minutes=2)
"""Time after which a request without an answer counts as one whose server died."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """State of an earlier request with the same key."""

    digest: bytes
    """Digest of that request."""
    status: int | None
    """None while it is carried out."""
    body: Any

    @property
    def command_id(self) -> int | None:
        """The command of a request that was recorded, and whose answer is not known."""
        is_open = self.status is None and self.body is not None
        return int(self.body[_COMMAND]) if is_open else None


def claim(connection: sa.Connection, user: str, key: str, digest: bytes) -> StoredAnswer | None:
    """Return the earlier request with a key; None if this one is the first, and now has the key."""
    connection.execute(sa.delete(answers).where(answers.c.created_at < sa.func.now() - KEPT))
    row = {"user_name": user, "key": key, "digest": digest}
    insert = pg.insert(answers).values(row).on_conflict_do_nothing().returning(answers.c.key)
    if connection.execute(insert).one_or_none() is not None:
        return None
    abandoned = sa.update(answers).where(
        *_is(user, key),
        answers.c.digest == digest,
        answers.c.status.is_(None),
        answers.c.body.is_(None),
        answers.c.created_at < sa.func.now() - ABANDONED,
    )
    if connection.execute(abandoned.values(created_at=sa.func.now())).rowcount == 1:
        return None
    columns = (answers.c.digest, answers.c.status, answers.c.body)
    found = connection.execute(sa.select(*columns).where(*_is(user, key))).one_or_none()
    # It was released between the two statements: the caller asks again.
    return StoredAnswer(digest, None, None) if found is None else StoredAnswer(*found)


def note_command(connection: sa.Connection, user: str, key: str, command_id: int) -> None:
    """Note the command of a request that is carried out, in the transaction that records it."""
    values = {"body": {_COMMAND: command_id}}
    is_open = answers.c.status.is_(None)
    connection.execute(sa.update(answers).where(*_is(user, key), is_open).values(values))


def store(connection: sa.Connection, user: str, key: str, status: int, body: Any) -> None:
    """Store the answer to a request that was carried out."""
    text = sa.cast(sa.literal(json_numbers.dump(body), sa.Text), answers.c.body.type)
    change = sa.update(answers).where(*_is(user, key)).values(status=status, body=text)
    connection.execute(change)


def release(connection: sa.Connection, user: str, key: str) -> None:
    """Forget a request that failed before it was recorded, so that it can be repeated."""
    is_open = sa.and_(answers.c.status.is_(None), answers.c.body.is_(None))
    connection.execute(sa.delete(answers).where(*_is(user, key), is_open))


def _is(user: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (answers.c.user_name == user, answers.c.key == key)
