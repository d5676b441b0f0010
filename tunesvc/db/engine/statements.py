"""Prepared statements, which a connection parses and plans only once.

For short statements that run often: planning one takes longer than executing it. The name of a
prepared statement is a digest of its text. So behind a pooler in transaction mode, where another
client may have prepared it on another connection, the name never means a different statement. If
the name is unknown there, the statement is run unprepared. Imports nothing of tunesvc.
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
    """A statement with psycopg2's parameters, `%(name)s`; each needs a type, by context or CAST."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        self._name = "tunesvc_" + hashlib.blake2s(sql.encode(), digest_size=12).hexdigest()
        numbered = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", sql)
        self._prepare = f"PREPARE {self._name} AS {numbered}"
        parameters = ", ".join(f"%({name})s" for name in names)
        values = f"({parameters})" if names else ""
        self._execute = f"EXECUTE {self._name}{values}"

    def run(
        self,
        connection: PoolProxiedConnection,
        cursor: Any,
        values: Mapping[str, Any],
    ) -> None:
        """Execute it with a cursor of a connection in autocommit.

        In a transaction, the retry after a failed EXECUTE would not be possible.
        """
        if self._name not in connection.info:
            with suppress(errors.DuplicatePreparedStatement):
                cursor.execute(self._prepare)
            connection.info[self._name] = True
        try:
            cursor.execute(self._execute, values)
        except errors.InvalidSqlStatementName:
            cursor.execute(self.sql, values)
