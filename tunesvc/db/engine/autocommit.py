"""Prepared statements, each a transaction of its own, run directly on the driver's connections.

Connections come from an engine's pool, and errors are those that the engine would raise. Only
SQLAlchemy's execution is bypassed: it takes a fifth of the time of a short statement. Imports
nothing above `db`.
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
    """A cursor with bounded waits, and named tuples as rows."""


class AutocommitPool:
    """Runs statements; safe to use from several threads."""

    def __init__(self, engine: sa.Engine) -> None:
        """`engine`: its pool is used; the connections must be in autocommit."""
        self._engine = engine

    def rows(self, statement: PreparedStatement, **values: Any) -> list[Any]:
        """Return a statement's rows as named tuples, committed; raise SQLAlchemy's errors."""
        rows: list[Any] = self._run(
            statement,
            values,
            lambda cursor: cursor.fetchall(),
        )
        return rows

    def first(self, statement: PreparedStatement, **values: Any) -> Any | None:
        """Return a statement's first row, or None."""
        return self._run(statement, values, lambda cursor: cursor.fetchone())

    def count(self, statement: PreparedStatement, **values: Any) -> int:
        """Return the number of rows that a statement changed or selected."""
        changed: int = self._run(statement, values, lambda cursor: cursor.rowcount)
        return changed

    def dispose(self, *, close: bool = True) -> None:
        """Close the idle connections, as `Engine.dispose` does."""
        self._engine.dispose(close=close)

    def _run(
        self,
        statement: PreparedStatement,
        values: dict[str, Any],
        take: Callable[[Any], Any],
    ) -> Any:
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor(cursor_factory=_NamedCursor)
            statement.run(connection, cursor, values)
            return take(cursor)
        except psycopg2.Error as error:
            raise self._translated(error, connection, statement, values) from error
        finally:
            connection.close()

    def _translated(
        self,
        error: psycopg2.Error,
        connection: PoolProxiedConnection,
        statement: PreparedStatement,
        values: dict[str, Any],
    ) -> Exception:
        dialect = self._engine.dialect
        # After a failover, libpq looks for the new primary only when it opens a connection.
        is_lost = error.pgcode == READ_ONLY
        is_lost = is_lost or dialect.is_disconnect(
            error,
            connection.dbapi_connection,
            None,
        )
        if is_lost:
            connection.invalidate(error)
            self._engine.dispose()
        translated: Exception = sa.exc.DBAPIError.instance(
            statement.sql,
            values,
            error,
            psycopg2.Error,
            connection_invalidated=is_lost,
            dialect=dialect,
        )
        return translated
