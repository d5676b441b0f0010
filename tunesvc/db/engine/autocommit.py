"""Prepared statements, each a transaction of its own, straight on the driver's connections.

The connections are those of an engine's pool, and what is raised is what the engine would raise. What is left out is
SQLAlchemy's own way of carrying out a statement: it takes a fifth of the time of a short one. Imports nothing above
the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import sqlalchemy as sa
from psycopg2.extras import NamedTupleCursor
from sqlalchemy.pool import PoolProxiedConnection

from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.engine.timeouts import BoundedCursor

READ_ONLY = "25006"


class _NamedCursor(BoundedCursor, NamedTupleCursor):  # type: ignore[misc]  # psycopg2 has no types
    """Waits for a bounded time; its rows are named tuples."""


class AutocommitPool:
    """Runs statements; used by several threads at once."""

    def __init__(self, engine: sa.Engine) -> None:
        """Of an engine, only the pool is used; its connections are in autocommit."""
        self._engine = engine

    def rows(self, statement: PreparedStatement, **values: Any) -> list[Any]:
        """What a statement returns, as named tuples. Committed when this returns; raises what SQLAlchemy does."""
        return self._run(statement, values, lambda cursor: cursor.fetchall())  # type: ignore[no-any-return]

    def first(self, statement: PreparedStatement, **values: Any) -> Any | None:
        """The first row that a statement returns, or None."""
        return self._run(statement, values, lambda cursor: cursor.fetchone())

    def count(self, statement: PreparedStatement, **values: Any) -> int:
        """How many rows a statement changed, or returns."""
        return self._run(statement, values, lambda cursor: cursor.rowcount)  # type: ignore[no-any-return]

    def dispose(self, *, close: bool = True) -> None:
        """Give up the idle connections, as `Engine.dispose` does."""
        self._engine.dispose(close=close)

    def _run(self, statement: PreparedStatement, values: dict[str, Any], take: Callable[[Any], Any]) -> Any:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor(cursor_factory=_NamedCursor)
            statement.run(connection, cursor, values)
            return take(cursor)
        except psycopg2.Error as error:
            raise self._as_sqlalchemys(error, connection, statement, values) from error
        finally:
            connection.close()

    def _as_sqlalchemys(
        self,
        error: psycopg2.Error,
        connection: PoolProxiedConnection,
        statement: PreparedStatement,
        values: dict[str, Any],
    ) -> Exception:
        dialect = self._engine.dialect
        # after a failover libpq looks for the new primary only when it connects anew
        is_lost = error.pgcode == READ_ONLY or dialect.is_disconnect(error, connection.dbapi_connection, None)
        if is_lost:
            connection.invalidate(error)
            self._engine.dispose()
        made: Exception = sa.exc.DBAPIError.instance(
            statement.sql, values, error, psycopg2.Error, connection_invalidated=is_lost, dialect=dialect
        )
        return made
