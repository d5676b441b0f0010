"""Translates temporary database errors, for callers that can retry the transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tunesvc.db.engine.database import is_unavailable, reason_of
from tunesvc.errors import DatabaseUnavailable


@contextmanager
def translate_unavailable() -> Iterator[None]:
    """Translate errors of one transaction.

    Raises:
        DatabaseUnavailable: the database did not answer, or accepts no writes for now.
    """
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        raise DatabaseUnavailable(reason_of(error)) from error
