"""Versions of the schema, and upgrades to this program's.

Revisions are `0001`, `0002`, ... in `versions/`. All missing ones run in one transaction, so a kill
in between leaves the database unchanged. No alembic.ini and no env.py: the connection is handed in.

Alembic is imported only for an upgrade: nearly all commands find the database ready.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from tunesvc.db.schema import service_tables
from tunesvc.errors import DatabaseError, SchemaVersionError

VERSION_TABLE = "tunesvc_version"
"""Not Alembic's default name, which Optuna's own storage uses in its databases."""

_VERSION = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))
_FOLDER = Path(__file__).parent
_LOCK_KEY = 0x74756E65  # "tune"
_LOCK_TIMEOUT = "60s"


def program_revision() -> str:
    """Return the schema revision that this program needs."""
    names = [path.name for path in (_FOLDER / "versions").glob("r*.py")]  # `r0001_first_schema.py`
    if not names:
        raise DatabaseError("this installation of tunesvc lacks its migrations: reinstall it")
    return max(names)[1:].partition("_")[0]


def database_revision(connection: sa.Connection) -> str | None:
    """Return the schema revision of a database; None without our tables."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))


def check(connection: sa.Connection) -> None:
    """Refuse any other revision than this program's.

    Raises:
        SchemaVersionError: the database is older or newer.
    """
    found, own = database_revision(connection), program_revision()
    if found is None or found < own:
        raise SchemaVersionError(
            f"the database's schema is at revision {found or 'none'}, and this program needs {own}:"
            " run `tune db upgrade`"
        )
    _refuse_newer(found, own)


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to this program's revision, within the connection's transaction. Repeatable.

    Several processes may do so at once: one works, the others wait and find it done.

    Raises:
        SchemaVersionError: the database is newer than this program.
        DatabaseError: it holds another program's tables under our names.
    """
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    found, own = database_revision(connection), program_revision()
    if found == own:
        return
    if found is None:
        _refuse_foreign_tables(connection)
    else:
        _refuse_newer(found, own)
    _run(connection)


def _refuse_newer(found: str, own: str) -> None:
    if found > own:
        raise SchemaVersionError(
            f"the database's schema is at revision {found}, newer than this program's {own}:"
            " upgrade tunesvc (`pip install -U tunesvc`), or point TUNE_DATABASE_URL at another"
            " database"
        )


def _refuse_foreign_tables(connection: sa.Connection) -> None:
    taken = sorted(
        set(sa.inspect(connection).get_table_names()) & set(service_tables.metadata.tables)
    )
    if taken:
        raise DatabaseError(
            f"the database holds tables of another program ({', '.join(taken)}): give tunesvc a"
            " database of its own (`CREATE DATABASE tunesvc`) and name it in TUNE_DATABASE_URL"
        )


def _run(connection: sa.Connection) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_FOLDER))

    def steps(revision: object, _: object) -> object:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]

    with EnvironmentContext(
        Config(),
        scripts,
        fn=steps,
        destination_rev="head",
    ) as environment:
        environment.configure(
            connection=connection,
            target_metadata=service_tables.metadata,
            version_table=VERSION_TABLE,
        )
        environment.run_migrations()
