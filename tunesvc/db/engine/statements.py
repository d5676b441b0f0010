"""Statements that a connection parses and plans once, and from then on only carries out.

For short statements that are run often: planning one takes longer than doing what it says. The name of a prepared
statement is a digest of its text, so that behind a pooler in transaction mode, where it may have been prepared by
somebody else or on another connection than this one, the name never stands for anything else; where it stands for
nothing, the statement is run as it is. Imports nothing of tunesvc.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from psycopg2 import errors
from sqlalchemy.pool import PoolProxiedConnection

_PARAMETER = re.compile(r"%\((\w+)\)s")


class PreparedStatement:
    """A statement with parameters as psycopg2 writes them, `%(name)s`; each needs a type, by its place or a CAST."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        self._name = "tunesvc_" + hashlib.blake2s(sql.encode(), digest_size=12).hexdigest()
        self._prepare = f"PREPARE {self._name} AS {_PARAMETER.sub(lambda m: f'${names.index(m[1]) + 1}', sql)}"
        values = f"({', '.join(f'%({name})s' for name in names)})" if names else ""
        self._execute = f"EXECUTE {self._name}{values}"

    def run(self, connection: PoolProxiedConnection, cursor: Any, values: Mapping[str, Any]) -> None:
        """Carry it out by a cursor of a connection in autocommit: what is asked twice must not stand in a failed
        transaction."""
        if self._name not in connection.info:
            with suppress(errors.DuplicatePreparedStatement):
                cursor.execute(self._prepare)
            connection.info[self._name] = True
        try:
            cursor.execute(self._execute, values)
        except errors.InvalidSqlStatementName:
            cursor.execute(self.sql, values)
