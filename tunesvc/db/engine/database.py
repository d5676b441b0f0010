"""Connections to Postgres: the choice of server, an engine with bounded waits, the right schema.

Owns the URL rules (`TUNE_DATABASE_URL` with `TUNE_DATABASE_PASSWORD_FILE`, else the embedded
server), the engine's settings, and the meaning of driver errors: which are temporary, and their
text. Imports nothing above `db`.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from tunesvc.db.engine.autocommit import READ_ONLY, AutocommitPool
from tunesvc.db.engine.timeouts import BoundedConnection, Watchdog
from tunesvc.db.schema import migrations
from tunesvc.errors import BadName, DatabaseError
from tunesvc.util.characters import find_unstorable

if TYPE_CHECKING:
    from tunesvc.db.embedded.embedded_server import EmbeddedServer

ANSWER_S = 30.0
"""Longest wait for the answer to a statement or commit; then the connection is closed."""
PING_S = 5.0
"""The same for a ping of an idle connection, which needs no work and no lock."""
LONG_ANSWER_S = 3600.0
"""The same for statements that are expected to take long."""
MIN_SERVER_VERSION = (14,)
MAX_NAME_BYTES = 2500
"""Names are index keys, which Postgres limits to 2,704 bytes with their other columns."""

_AT_MOST = f"at most {MAX_NAME_BYTES} can be stored"
_UNSTORABLE = "it holds a NUL or half of a surrogate pair"
_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
_NOT_ON_WINDOWS = """the embedded Postgres does not run on Windows: use WSL, or set \
TUNE_DATABASE_URL to a server"""
_EXAMPLE = "postgresql://user:password@host:5432/name"
_CONNECTION_DEFAULTS = {
    "application_name": "tunesvc",
    "connect_timeout": "10",
    # A coordinator that freezes within a transaction must not keep its locks. Less than ANSWER_S,
    # so that a process that waits for them still gets them.
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=15s",
    # Refuses a standby, or an old primary after a failover.
    "target_session_attrs": "read-write",
    # A peer that disappeared is noticed within a minute.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_PLAN_ONCE = " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
"""For prepared statements: one plan for all parameters, which stays good when tables grow."""


_ADVICE = ("\t", " ", "DETAIL:", "HINT:", "CONTEXT:", "LINE ")
_TEMPORARY = {
    READ_ONLY: "the server takes no writes: it is a standby, or was the primary before a failover",
    "25P03": "the transaction stood still for too long",
    "25P04": "the transaction took too long",
    "40001": "the transaction crossed another one",
    "40P01": "the transaction and another one waited for each other",
    "53000": "the server lacks resources",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections",
    "53400": "the server has reached one of its limits",
    "55P03": "a lock was not free in time",
    "57014": "the statement was cancelled",
    "57P01": "the server shuts down, or an administrator ended the connection",
    "57P02": "the server crashed",
    "57P03": "the server starts up or shuts down",
    "57P05": "the server closed an idle connection",
    "58030": "the server cannot read or write its files",
}
"""SQLSTATEs of temporary errors, after which the same transaction may succeed, and our texts."""

_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An open database; a context manager. `close()` may be repeated, and runs at exit too."""

    def __init__(
        self,
        url: sa.URL,
        server: EmbeddedServer | None = None,
        *,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._url = url
        self._server = server
        self._watchdog = Watchdog(answer_s, ping_s=min(PING_S, answer_s))
        query: dict[str, Any] = {**_CONNECTION_DEFAULTS, **url.query}
        self.engine = self._engine(query)
        planned_once = query | {"options": query["options"] + _PLAN_ONCE}
        short = self._engine(planned_once, isolation_level="AUTOCOMMIT")
        self.autocommit = AutocommitPool(short)
        """Runs short statements, each a transaction of its own. Connections in steady use are not
        pinged, so a peer that disappears between two statements costs `answer_s`, not `ping_s`."""
        self._reads = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        """The same connections, without a round trip to begin and one to end a transaction."""
        sa.event.listen(self.engine, "checkout", _ping)
        sa.event.listen(short, "checkout", _ping_unless_fresh)
        atexit.register(self.close)
        _OPEN.add(self)

    def _engine(self, query: Mapping[str, Any], **options: Any) -> sa.Engine:
        engine = sa.create_engine(
            self._url.set(query=query),
            # Connections that a burst of requests opens are kept: each is a process of the server.
            pool_size=20,
            max_overflow=5,
            connect_args={"connection_factory": self._watchdog.connect},
            **options,
        )
        sa.event.listen(engine, "handle_error", _disconnect_if_read_only)
        return engine

    @property
    def url(self) -> str:
        """URL with the password: to connect from elsewhere, never to be shown."""
        return self._url.render_as_string(hide_password=False)

    @property
    def name(self) -> str:
        """Location without the password, for messages."""
        if self._server is None:
            return masked(self._url)
        return f"embedded database at {self._server.home}"

    @property
    def is_embedded(self) -> bool:
        """True if this process uses the embedded server."""
        return self._server is not None

    @contextmanager
    def long_transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction for statements as long as migrations."""
        with self.engine.begin() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.wait_limit.lasting(LONG_ANSWER_S):
                yield connection

    def rows(
        self,
        query: sa.Executable,
        values: Mapping[str, Any] | None = None,
    ) -> Sequence[Any]:
        """Return the rows of a query, which is a transaction of its own."""
        with self._reads.connect() as connection:
            return connection.execute(query, values).all()

    def scalars(self, query: sa.Executable) -> tuple[Any, ...]:
        """Return the first column of a query, which is a transaction of its own."""
        return tuple(row[0] for row in self.rows(query))

    def ensure_running(self) -> str:
        """Start the embedded server if it has died; do nothing for any other server.

        Returns the reason why it does not run, on one line, or an empty text; never raises. Takes
        milliseconds if it runs, seconds if not. Several processes may call it at once.
        """
        return self._server.ensure_running() if self._server is not None else ""

    def disconnect(self) -> None:
        """Close idle connections. New ones are opened when needed."""
        self.engine.dispose()
        self.autocommit.dispose()

    def close(self) -> None:
        """Close all connections; the last user of an embedded server stops it."""
        atexit.unregister(self.close)
        self.disconnect()
        self._watchdog.close()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ping(connection: BoundedConnection, *_: object, even_if_fresh: bool = True) -> None:
    """Replace an idle connection that was lost; `pool_pre_ping` would wait for `answer_s`."""
    try:
        connection.ping(even_if_fresh=even_if_fresh)
    except psycopg2.Error as error:
        raise sa.exc.InvalidatePoolError from error


def _ping_unless_fresh(connection: BoundedConnection, *_: object) -> None:
    _ping(connection, even_if_fresh=False)


def _disconnect_if_read_only(context: sa.ExceptionContext) -> None:
    """Close all connections after a failover: libpq finds the new primary only with new ones."""
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True


def _forget_inherited_connections() -> None:
    """Leave the connections to the parent, in a forked process, and open new ones."""
    for database in _OPEN:
        database._watchdog.reset()
        database.engine.dispose(close=False)
        database.autocommit.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited_connections)


def open_database(url: str | None = None, *, migrate: bool = True) -> Database:
    """Open the database at `url`, else at `TUNE_DATABASE_URL`, else the embedded one.

    With `migrate`, an empty or older schema is upgraded, by one process at a time; a crash
    meanwhile leaves it unchanged.

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
    """Open a database with any schema, for status, backup and restore.

    Raises:
        DatabaseError: no server can be started or reached, or it is too old.
    """
    location = url or os.environ.get("TUNE_DATABASE_URL")
    database = _at(location) if location else _open_embedded()
    try:
        _check_server(database)
    except BaseException:
        database.close()
        raise
    return database


def _at(location: str) -> Database:
    return Database(_with_password(parse_url(location)))


def parse_url(text: str) -> sa.URL:
    """Parse a Postgres URL as users write it, for our driver.

    Several hosts, in libpq's form (`postgresql://user@one:5432,two:5432/name`), become parameters.

    Raises:
        DatabaseError: it is not one. The text omits the URL, which may contain a password.
    """
    try:
        url = _make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseError(f"the database URL cannot be read: write {_EXAMPLE}") from None
    if url.drivername not in _SCHEMES:
        raise DatabaseError(
            f"tunesvc stores in Postgres only, not in {url.drivername}: write {_EXAMPLE}",
        )
    return url.set(drivername="postgresql+psycopg2")


def _make_url(text: str) -> sa.URL:
    several = re.fullmatch(r"(\w+(?:\+\w+)?://(?:[^@]*@)?)([^/?@]*,[^/?@]*)([/?].*)?", text)
    if several is None:
        return sa.make_url(text)
    before, addresses, after = several.groups()
    hosts, ports = zip(*map(_host_and_port, addresses.split(",")), strict=True)
    url = sa.make_url(before + (after or ""))
    return url.update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


def _host_and_port(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*))(?::(\d*))?", text)
    if match is None:
        raise ArgumentError("no host and port")
    return match[1] or match[2], match[3] or ""


def _with_password(url: sa.URL) -> sa.URL:
    """Return the URL, with the password of `TUNE_DATABASE_PASSWORD_FILE` if it has none."""
    path = os.environ.get("TUNE_DATABASE_PASSWORD_FILE")
    if not path or url.password is not None:
        return url
    try:
        return url.set(password=Path(path).read_text().rstrip("\n"))
    except (OSError, UnicodeError) as error:
        raise DatabaseError(
            f"TUNE_DATABASE_PASSWORD_FILE names {path}, which cannot be read: {error}",
        ) from None


def masked(url: sa.URL) -> str:
    """Return a URL without its password, also among the parameters, for messages."""
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def checked_name(text: str, what: str) -> str:
    """Return a name unchanged if Postgres can store it.

    Raises:
        BadName: it contains NUL or a lone surrogate, or is too long. `what` describes it.
    """
    if find_unstorable(text) is not None:
        raise BadName(
            f"{what} {text!r} cannot be stored: {_UNSTORABLE}; leave those out",
        )
    if (length := len(text.encode())) > MAX_NAME_BYTES:
        raise BadName(
            f"{what} {text[:40]!r}... has {length} bytes; {_AT_MOST}: shorten it",
        )
    return text


def is_unavailable(error: BaseException) -> bool:
    """Return True if the transaction may succeed later, on a new connection.

    Such errors are: no server, no answer, a lost connection, a read-only server, a full disk,
    conflicting transactions. The failed transaction may have been committed. Any other error is a
    mistake in the program or the data.
    """
    if isinstance(error, sa.exc.TimeoutError):
        # All connections of this process were busy.
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = _sqlstate(error)
    if code is None:
        # An error of the driver itself: it could not connect.
        return isinstance(error, sa.exc.OperationalError)
    return code in _TEMPORARY or code.startswith("08")


def reason_of(error: BaseException) -> str:
    """Return a database error's text on one line, without statement and parameters."""
    driver = getattr(error, "orig", None) or error
    message = _first_lines(str(driver)) or type(driver).__name__
    meaning = _TEMPORARY.get(_sqlstate(error) or "")
    return f"{meaning} ({message})" if meaning else message


def _first_lines(text: str) -> str:
    """Return a message without its lines of advice, which are indented or have a prefix."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_ADVICE)]
    return "; ".join(line.strip().rstrip(".") for line in lines)


def _sqlstate(error: BaseException) -> str | None:
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    return None if code is None else str(code)


def _open_embedded() -> Database:
    if sys.platform == "win32":
        raise DatabaseError(_NOT_ON_WINDOWS)
    from tunesvc.db.embedded.embedded_server import EmbeddedServer

    server = EmbeddedServer()
    return Database(server.url, server)


def _check_server(database: Database) -> None:
    try:
        with database.engine.connect() as connection:
            encoding = connection.scalar(sa.text("SHOW server_encoding"))
    except (DBAPIError, NoSuchModuleError, UnicodeError) as error:
        raise DatabaseError(
            f"{database.name} cannot be reached: {_reason(database, error)}",
        ) from None
    version = database.engine.dialect.server_version_info or (0,)
    if version < MIN_SERVER_VERSION:
        found = ".".join(map(str, version))
        raise DatabaseError(
            f"{database.name} is Postgres {found}; tunesvc needs {MIN_SERVER_VERSION[0]} or newer",
        )
    if encoding != "UTF8":
        raise DatabaseError(
            f"{database.name} has encoding {encoding}: create the database with ENCODING 'UTF8'",
        )


INSUFFICIENT_PRIVILEGE = "42501"
"""Postgres's code for an action that the role may not perform."""


def _ready(database: Database, migrate: bool) -> None:
    try:
        with database.long_transaction() as connection:
            if migrations.database_revision(connection) == migrations.program_revision():
                return
            if migrate:
                migrations.upgrade(connection)
            else:
                migrations.check(connection)
    except DBAPIError as error:
        remedy = ""
        if getattr(error.orig, "pgcode", None) == INSUFFICIENT_PRIVILEGE:
            remedy = "; run `tune db upgrade` as the owner of its tables"
        raise DatabaseError(
            f"the schema of {database.name} cannot be set up: {_reason(database, error)}{remedy}",
        ) from error


def _reason(database: Database, error: Exception) -> str:
    text = str(getattr(error, "orig", error)).strip()
    password = database.engine.url.password
    return text.replace(password, "***") if password else text
