"""Migrated, empty databases for tests. One that differs from a new one by a few rows only is emptied
and used again, which costs less than a third of making one and dropping it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg2
import sqlalchemy as sa

from tunesvc.db.engine.database import open_database
from tunesvc.db.schema.migrations import VERSION_TABLE

_NUMBERS = count(1)
_CATALOGS = {
    "pg_class": "oid",
    "pg_attribute": "attrelid",
    "pg_attrdef": "adrelid",
    "pg_constraint": "oid",
    "pg_index": "indexrelid",
    "pg_trigger": "tgrelid",
    "pg_proc": "oid",
    "pg_type": "oid",
    "pg_statistic": "starelid",
    "pg_namespace": "1e6",
    "pg_default_acl": "1e6",
    "pg_extension": "1e6",
}
"""Catalogues that change with a schema, its privileges and its statistics, and their owners' columns."""
_BYTES_MAX = 4_000_000
"""A database that has grown further is not worth emptying: rows that were deleted take time to skip."""


class DatabasePool:
    """Databases of one server, each for one test at a time."""

    def __init__(self, server_url: sa.URL) -> None:
        self._url = server_url
        self._template = "template_tunesvc"
        self._run("postgres", f"CREATE DATABASE {self._template}")
        open_database(self.url_of(self._template)).close()
        self._as_new = self._run(self._template, _STATE)
        self._emptied = self._run(self._template, _EMPTYING)[0][0]
        self._free: list[str] = []

    def url_of(self, name: str) -> str:
        """Return the URL of a database."""
        return self._url.set(database=name).render_as_string(hide_password=False)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A database without any table, by its URL."""
        name = self._next_name()
        self._run("postgres", f"CREATE DATABASE {name}")
        try:
            yield self.url_of(name)
        finally:
            self._drop(name)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """A migrated database without rows, by its URL."""
        name = self._free.pop() if self._free else self._made()
        try:
            yield self.url_of(name)
        finally:
            self._give_back(name)

    def _made(self) -> str:
        name = self._next_name()
        options = f"TEMPLATE {self._template} STRATEGY WAL_LOG"
        self._run("postgres", f"CREATE DATABASE {name} {options}")
        return name

    def _give_back(self, name: str) -> None:
        """Empty a database under a new name, which nothing that its test left behind knows; drop it
        if more than rows has changed, or if it does not answer."""
        renamed = self._next_name()
        try:
            self._run(
                "postgres",
                _DISCONNECTING.format(name),
                f"ALTER DATABASE {name} RENAME TO {renamed}",
            )
            name = renamed
            if self._run(name, _STATE) == self._as_new:
                self._run(name, self._emptied)
                self._free.append(name)
                return
        except psycopg2.Error:
            pass
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._run("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _next_name(self) -> str:
        return f"test_{next(_NUMBERS)}"

    def _run(self, database: str, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements, each in a transaction of its own; return the rows of the last."""
        connection = psycopg2.connect(
            host=self._url.query["host"],
            port=self._url.query["port"],
            user=self._url.username,
            password=self._url.password,
            dbname=database,
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


_DISCONNECTING = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
_TABLES = "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
_CHANGES = ", ".join(
    f"(SELECT (count(*), max(xmin::text::bigint))::text FROM {catalog} WHERE {owner} >= 16384)"
    for catalog, owner in _CATALOGS.items()
)
_STATE = f"""
    SELECT {_CHANGES},
           (SELECT sum(pg_total_relation_size(oid)) < {_BYTES_MAX} {_TABLES}),
           (SELECT (sum(relpages), sum(reltuples))::text {_TABLES}),
           (SELECT (datacl, datallowconn, datconnlimit, datistemplate)::text
            FROM pg_database WHERE datname = current_database()),
           (SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
            WHERE datname = current_database()),
           (SELECT string_agg(version_num, ',') FROM {VERSION_TABLE})
"""
"""All that distinguishes a database from a new one, but for rows and numbers given out."""
_EMPTYING = f"""
    SELECT 'SET session_replication_role = replica;'
           || (SELECT string_agg(format('DELETE FROM %I;', relname), '') {_TABLES}
               AND relname <> '{VERSION_TABLE}')
           || (SELECT string_agg(format('SELECT setval(%L, 1, false);', oid::regclass), '')
               FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace)
"""
"""Statements that delete all rows, without regard to their order, and begin all numbers again."""
