"""Status, backup and restore of a database.

Backups have Postgres's custom format, written and read by `pg_dump` and `pg_restore` of the
embedded wheel; any Postgres of the same or a newer version reads them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import sqlalchemy as sa
from psycopg2.extensions import make_dsn

from tunesvc.db.embedded import postgres_binaries
from tunesvc.db.engine.database import Database, parse_url
from tunesvc.db.schema import migrations
from tunesvc.db.schema.migrations import VERSION_TABLE
from tunesvc.db.schema.tables import metadata
from tunesvc.errors import DatabaseError, SchemaVersionError, StudyBusy

_LOCK_TIMEOUT_MS = 60_000
_RUNNING = "SELECT count(*) FROM leases WHERE expires_at > now()"


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """Status of a database, as `tune db status` shows it."""

    name: str
    """Its location, without password."""
    server_version: str
    revision: str | None
    """The schema's revision; None for a database without our tables."""
    program_revision: str
    size_bytes: int
    studies: int
    trials: int
    running: int
    """Studies that a coordinator is running."""


def status(database: Database) -> DatabaseStatus:
    """Return the status of a database with any schema version."""
    with database.engine.connect() as connection:
        revision = migrations.database_revision(connection)
        return DatabaseStatus(
            name=database.name,
            server_version=str(connection.scalar(sa.text("SHOW server_version"))),
            revision=revision,
            program_revision=migrations.program_revision(),
            size_bytes=_scalar(connection, "SELECT pg_database_size(current_database())"),
            studies=_count(connection, revision, "SELECT count(*) FROM studies"),
            trials=_count(connection, revision, "SELECT count(*) FROM trials"),
            running=_count(connection, revision, _RUNNING),
        )


def backup(database: Database, path: Path) -> None:
    """Write a consistent snapshot of the database to `path`; studies may run meanwhile.

    The file appears complete or not at all, readable by its owner only, and replaces another.

    Raises:
        DatabaseError: the server is newer than our `pg_dump`, or the file cannot be written.
    """
    _refuse_newer_server(database)
    try:
        fd, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DatabaseError(f"the backup {path} cannot be written: {error.strerror}") from error
    try:
        os.close(fd)
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={unfinished}")
        _run(database, "pg_dump", *options)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def restore(database: Database, path: Path, *, replace: bool = False) -> None:
    """Restore a backup into `database` and upgrade the schema, completely or not at all.

    Args:
        database: opened with `connect`; empty, or without studies, unless `replace`.
        path: a file that `backup` wrote.
        replace: delete the existing studies.

    Raises:
        StudyBusy: a coordinator runs a study that would be deleted.
        SchemaVersionError: the backup comes from a newer tunesvc.
        DatabaseError: the database has studies, or the file is not our backup, or is damaged.
    """
    _refuse_newer_backup(path)
    _refuse_occupied(database, replace)
    _replace_tables(database, path)
    database.engine.dispose()
    with database.long_transaction() as connection:
        migrations.upgrade(connection)


def _count(connection: sa.Connection, revision: str | None, query: str) -> int:
    return _scalar(connection, query) if revision is not None else 0


def _scalar(connection: sa.Connection, query: str) -> int:
    return int(connection.scalar(sa.text(query)) or 0)


def _refuse_newer_server(database: Database) -> None:
    with database.engine.connect():
        server = int((database.engine.dialect.server_version_info or (0,))[0])
    # `pg_dump (PostgreSQL) 18.6`
    own = int(_run(None, "pg_dump", "--version").split()[-1].split(".")[0])
    if server > own:
        raise DatabaseError(
            f"{database.name} is Postgres {server}, newer than the pg_dump {own} that tunesvc "
            "brings: use that server's own `pg_dump --format=custom`"
        )


def _refuse_newer_backup(path: Path) -> None:
    if not path.is_file():
        raise DatabaseError(f"there is no backup {path}")
    own = migrations.program_revision()
    sql = _run(
        None,
        "pg_restore",
        "--data-only",
        f"--table={VERSION_TABLE}",
        "--file=-",
        str(path),
    )
    lines = iter(sql.splitlines())
    found = next((next(lines, "") for line in lines if line.startswith("COPY ")), None)
    if found is None:
        raise DatabaseError(f"{path} is no backup of a tunesvc database")
    if found > own:
        newer = f"newer than this program's {own}: upgrade tunesvc"
        raise SchemaVersionError(f"the backup {path} has schema revision {found}, {newer}")


def _refuse_occupied(database: Database, replace: bool) -> None:
    now = status(database)
    if now.studies and not replace:
        raise DatabaseError(
            f"{now.name} holds {now.studies} studies, which a restore would throw away: "
            "restore into an empty database, or say that they may go "
            "(`tune db restore --replace`)"
        )
    if now.running:
        raise StudyBusy(
            f"{now.running} studies of {now.name} are being run: stop them before restoring",
        )


def _replace_tables(database: Database, path: Path) -> None:
    """Drop our tables and read the backup, in one transaction.

    `pg_restore` alone drops only the tables that the backup has. Those of a later schema would
    stay, and the upgrade would find them.
    """
    preparer = database.engine.dialect.identifier_preparer
    tables = ", ".join(preparer.quote(name) for name in (*metadata.tables, VERSION_TABLE))
    options = ("--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-")
    target, secrets = _connection(database)
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        reader = subprocess.Popen(
            [_program("pg_restore"), *options, path],
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        writer = subprocess.Popen(
            [_program("psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file=-", *target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_environment(secrets),
        )
        sql, connection = cast(IO[bytes], reader.stdout), cast(IO[bytes], writer.stdin)
        with suppress(BrokenPipeError), reader, writer:  # `psql` has ended with an error
            connection.write(f"BEGIN; DROP TABLE IF EXISTS {tables} CASCADE;\n".encode())
            shutil.copyfileobj(sql, connection)
            if reader.wait() == 0:  # without a commit, all is rolled back
                connection.write(b"COMMIT;\n")
        if reader.returncode or writer.returncode:
            errors.seek(0)
            raise DatabaseError(
                f"the backup {path} cannot be restored on {database.name}: {errors.read().strip()}",
            )


def _program(name: str) -> Path:
    return postgres_binaries.bin_directory() / name


def _environment(secrets: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", **secrets}


def _run(database: Database | None, program: str, *arguments: str) -> str:
    """Run a client program of Postgres, connected to `database` if given; return its output."""
    target, secrets = _connection(database) if database else ([], {})
    done = subprocess.run(
        [_program(program), *target, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=_environment(secrets),
    )
    if done.returncode != 0:
        place = f" on {database.name}" if database else ""
        raise DatabaseError(f"{program} failed{place}: {done.stderr.strip()}")
    return str(done.stdout)


def _connection(database: Database) -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment of a client program.

    The password is in the environment: every user of the machine can see arguments.
    """
    _, parameters = database.engine.dialect.create_connect_args(parse_url(database.url))
    password = str(parameters.pop("password", ""))
    options = f"-c lock_timeout={_LOCK_TIMEOUT_MS}"
    environment = {"PGPASSWORD": password, "PGOPTIONS": options}
    return [f"--dbname={make_dsn(**parameters)}"], environment
