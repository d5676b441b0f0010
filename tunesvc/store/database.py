"""The way to Postgres: which server, an engine that fails in bounded time, and a schema of the right version.

Owns the URL rules (`TUNE_DATABASE_URL` with `TUNE_DATABASE_PASSWORD_FILE`, else the embedded server), the engine's
settings, and turning driver errors into sentences. Imports nothing above the store.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from tunesvc.errors import BadName, DatabaseError
from tunesvc.store import migrations

if TYPE_CHECKING:
    from tunesvc.store.embedded import EmbeddedServer

MIN_SERVER_VERSION = (14,)
MAX_NAME_BYTES = 2500
"""Names are index keys, and Postgres allows these 2,704 bytes with what stands beside them."""

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
_EXAMPLE = "postgresql://user:password@host:5432/name"
_CONNECTION_DEFAULTS = {
    "application_name": "tunesvc",
    "connect_timeout": "10",
    "options": "-c timezone=UTC",
    # a standby or an old primary after a failover is refused
    "target_session_attrs": "read-write",
    # a peer that is gone without a word is noticed within a minute
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An open database. A context manager; `close()` is repeatable and also happens when the program ends."""

    def __init__(self, url: sa.URL, server: EmbeddedServer | None = None) -> None:
        self._url = url
        self._server = server
        enriched = url.set(query={**_CONNECTION_DEFAULTS, **url.query})
        self.engine = sa.create_engine(enriched, pool_pre_ping=True, pool_size=5, max_overflow=20)
        atexit.register(self.close)
        _OPEN.add(self)

    @property
    def url(self) -> str:
        """Where it is, password included: for connecting from elsewhere, never for showing."""
        return self._url.render_as_string(hide_password=False)

    @property
    def name(self) -> str:
        """Where it is, without password, for people."""
        return f"embedded database at {self._server.home}" if self._server else masked(self._url)

    @property
    def is_embedded(self) -> bool:
        """Whether this process shares in the embedded server."""
        return self._server is not None

    def close(self) -> None:
        """Close all connections; the last user of an embedded server stops it."""
        atexit.unregister(self.close)
        self.engine.dispose()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _forget_inherited_connections() -> None:
    """In a forked copy of this process: leave the connections to the parent and make new ones."""
    for database in _OPEN:
        database.engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_connections)


def open_database(url: str | None = None, *, migrate: bool = True) -> Database:
    """Open the database at `url`, else at `TUNE_DATABASE_URL`, else the embedded one, with a schema ready for use.

    With `migrate` an empty or older schema is brought up to date, by one process at a time; a crash meanwhile
    leaves it as it was.

    Raises:
        SchemaVersionError: the schema is newer than this program, or older and `migrate` is off.
        DatabaseError: no server can be started or reached, or it cannot serve.
    """
    database = connect(url)
    try:
        _ready(database, migrate)
    except BaseException:
        database.close()
        raise
    return database


def connect(url: str | None = None) -> Database:
    """Open a database whatever its schema, for looking after it: status, backup, restore.

    Raises:
        DatabaseError: no server can be started or reached, or it is too old.
    """
    given = url or os.environ.get("TUNE_DATABASE_URL")
    database = Database(_with_password(parse_url(given))) if given else _open_embedded()
    try:
        _check_server(database)
    except BaseException:
        database.close()
        raise
    return database


def parse_url(text: str) -> sa.URL:
    """A Postgres URL as users write it, for the driver that we use.

    Raises:
        DatabaseError: it is none. The text does not repeat the URL, which may bear a password.
    """
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseError(f"the database URL cannot be read: write {_EXAMPLE}") from None
    if url.drivername not in _SCHEMES:
        raise DatabaseError(f"tunesvc stores in Postgres only, not in {url.drivername}: write {_EXAMPLE}")
    return url.set(drivername="postgresql+psycopg2")


def _with_password(url: sa.URL) -> sa.URL:
    """The URL with the password from the file that `TUNE_DATABASE_PASSWORD_FILE` names, if it bears none itself."""
    path = os.environ.get("TUNE_DATABASE_PASSWORD_FILE")
    if not path or url.password is not None:
        return url
    try:
        return url.set(password=Path(path).read_text().rstrip("\n"))
    except (OSError, UnicodeError) as error:
        raise DatabaseError(f"TUNE_DATABASE_PASSWORD_FILE names {path}, which cannot be read: {error}") from None


def masked(url: sa.URL) -> str:
    """A URL that may be shown: the password is gone, in its usual place and among the parameters."""
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def safe_text(text: str) -> str:
    """`text` as Postgres can store it: NUL and lone surrogates become U+FFFD. For messages, output, tracebacks."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def checked_name(text: str, what: str) -> str:
    """`text` unchanged, when Postgres can store it as it is.

    Raises:
        BadName: it holds NUL or a lone surrogate, or is too long. `what` says what it names.
    """
    if safe_text(text) != text:
        raise BadName(f"{what} {text!r} cannot be stored: it holds a NUL or half of a surrogate pair; leave those out")
    if (length := len(text.encode())) > MAX_NAME_BYTES:
        raise BadName(f"{what} {text[:40]!r}... has {length} bytes; at most {MAX_NAME_BYTES} can be stored: shorten it")
    return text


def _open_embedded() -> Database:
    if sys.platform == "win32":
        raise DatabaseError(
            "the embedded Postgres does not run on Windows: use WSL, or set TUNE_DATABASE_URL to a server"
        )
    from tunesvc.store.embedded import EmbeddedServer

    server = EmbeddedServer()
    return Database(server.url, server)


def _check_server(database: Database) -> None:
    try:
        with database.engine.connect() as connection:
            encoding = connection.scalar(sa.text("SHOW server_encoding"))
    except (DBAPIError, NoSuchModuleError, UnicodeError) as error:
        raise DatabaseError(f"{database.name} cannot be reached: {_reason(database, error)}") from None
    version = database.engine.dialect.server_version_info or (0,)
    if version < MIN_SERVER_VERSION:
        raise DatabaseError(
            f"{database.name} is Postgres {'.'.join(map(str, version))}; tunesvc needs {MIN_SERVER_VERSION[0]} or newer"
        )
    if encoding != "UTF8":
        raise DatabaseError(f"{database.name} has encoding {encoding}: create the database with ENCODING 'UTF8'")


def _ready(database: Database, migrate: bool) -> None:
    try:
        with database.engine.begin() as connection:
            if migrations.database_revision(connection) == migrations.program_revision():
                return
            if migrate:
                migrations.upgrade(connection)
            else:
                migrations.check(connection)
    except DBAPIError as error:
        raise DatabaseError(f"the schema of {database.name} cannot be set up: {_reason(database, error)}") from error


def _reason(database: Database, error: Exception) -> str:
    text = str(getattr(error, "orig", error)).strip()
    password = database.engine.url.password
    return text.replace(password, "***") if password else text
