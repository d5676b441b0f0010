"""A database that is away for now, told as such: for whoever can wait and try the same transaction again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tunesvc.db.engine.database import is_unavailable, reason_of
from tunesvc.errors import DatabaseUnavailable


@contextmanager
def translate_unavailable() -> Iterator[None]:
    """Around one transaction.

    Raises:
        DatabaseUnavailable: the database did not answer, or does not write for now.
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        raise DatabaseUnavailable(reason_of(error)) from error
