"""The way to Postgres: which server, an engine that fails in bounded time, and a schema of the right version.

Owns the URL rules (`TUNE_DATABASE_URL` with `TUNE_DATABASE_PASSWORD_FILE`, else the embedded server), the engine's
settings, and turning driver errors into sentences: which of them may pass, and what they mean. Imports nothing above
the store.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import weakref
from collections.abc import Iterator, Mapping
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

if TYPE_CHECKING:
    from tunesvc.db.embedded.embedded_server import EmbeddedServer

ANSWER_S = 30.0
"""Longest wait for the answer to one statement or commit; then the connection is given up."""
PING_S = 5.0
"""The same for the question whether a connection that lay idle is still there, which needs no work and no lock."""
PATIENCE_S = 3600.0
"""The same, where a statement may rightly take long."""
MIN_SERVER_VERSION = (14,)
MAX_NAME_BYTES = 2500
"""Names are index keys, and Postgres allows these 2,704 bytes with what stands beside them."""

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
_EXAMPLE = "postgresql://user:password@host:5432/name"
_CONNECTION_DEFAULTS = {
    "application_name": "tunesvc",
    "connect_timeout": "10",
    # a coordinator that is frozen within a transaction must not keep its locks; less than ANSWER_S, so that whoever
    # waits for them gets them
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=15s",
    # a standby or an old primary after a failover is refused
    "target_session_attrs": "read-write",
    # a peer that is gone without a word is noticed within a minute
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_PLAN_ONCE = " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
"""For prepared statements: one plan for all parameters, and one that also serves when a table that was small grows."""


_ADVICE = ("\t", " ", "DETAIL:", "HINT:", "CONTEXT:", "LINE ")
_TRY_AGAIN_LATER = {
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
"""SQLSTATEs that say nothing against the transaction: the same one may go through later. And in our words."""

_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """An open database. A context manager; `close()` is repeatable and also happens when the program ends."""

    def __init__(self, url: sa.URL, server: EmbeddedServer | None = None, *, answer_s: float = ANSWER_S) -> None:
        self._url = url
        self._server = server
        self._watchdog = Watchdog(answer_s, ping_s=min(PING_S, answer_s))
        query: dict[str, Any] = {**_CONNECTION_DEFAULTS, **url.query}
        self.engine = self._engine(query)
        short = self._engine(query | {"options": query["options"] + _PLAN_ONCE}, isolation_level="AUTOCOMMIT")
        self.autocommit = AutocommitPool(short)
        """For short statements that are each a transaction of its own: nothing else is said to the server while one
        follows the other. A peer that falls silent in between then costs `answer_s`, not `ping_s`."""
        sa.event.listen(self.engine, "checkout", _ping)
        sa.event.listen(short, "checkout", _ping_unless_fresh)
        atexit.register(self.close)
        _OPEN.add(self)

    def _engine(self, query: Mapping[str, Any], **options: Any) -> sa.Engine:
        engine = sa.create_engine(
            self._url.set(query=query),
            pool_size=5,
            max_overflow=20,
            connect_args={"connection_factory": self._watchdog.connect},
            **options,
        )
        sa.event.listen(engine, "handle_error", _leave_a_server_that_takes_no_writes)
        return engine

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

    @contextmanager
    def long_transaction(self) -> Iterator[sa.Connection]:
        """A transaction whose statements may take as long as migrations do."""
        with self.engine.begin() as connection:
            driver: BoundedConnection = connection.connection.driver_connection  # type: ignore[assignment]
            with driver.patience.lasting(PATIENCE_S):
                yield connection

    def ensure_running(self) -> str:
        """See to it that the embedded server runs, should it have died; for any other server there is nothing to do.

        Returns why it does not, on one line, or nothing when it does; never raises. Takes milliseconds when it runs,
        seconds when it does not. May be called by several processes at once.
        """
        return self._server.ensure_running() if self._server is not None else ""

    def disconnect(self) -> None:
        """Give idle connections back to the server. New ones are made when needed."""
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
    """Replace what was lost while it lay idle. `pool_pre_ping` would wait for as long as for any other statement."""
    try:
        connection.ping(even_if_fresh=even_if_fresh)
    except psycopg2.Error as error:
        raise sa.exc.InvalidatePoolError from error


def _ping_unless_fresh(connection: BoundedConnection, *_: object) -> None:
    _ping(connection, even_if_fresh=False)


def _leave_a_server_that_takes_no_writes(context: sa.ExceptionContext) -> None:
    """After a failover: give up all connections, for libpq looks for the new primary only when it connects anew."""
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True


def _forget_inherited_connections() -> None:
    """In a forked copy of this process: leave the connections to the parent and make new ones."""
    for database in _OPEN:
        database._watchdog.begin_anew()
        database.engine.dispose(close=False)
        database.autocommit.dispose(close=False)


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

    Several hosts, as libpq takes them (`postgresql://user@one:5432,two:5432/name`), move among the parameters.

    Raises:
        DatabaseError: it is none. The text does not repeat the URL, which may bear a password.
    """
    try:
        url = _make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseError(f"the database URL cannot be read: write {_EXAMPLE}") from None
    if url.drivername not in _SCHEMES:
        raise DatabaseError(f"tunesvc stores in Postgres only, not in {url.drivername}: write {_EXAMPLE}")
    return url.set(drivername="postgresql+psycopg2")


def _make_url(text: str) -> sa.URL:
    several = re.fullmatch(r"(\w+(?:\+\w+)?://(?:[^@]*@)?)([^/?@]*,[^/?@]*)([/?].*)?", text)
    if several is None:
        return sa.make_url(text)
    before, places, after = several.groups()
    hosts, ports = zip(*map(_host_and_port, places.split(",")), strict=True)
    return sa.make_url(before + (after or "")).update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


def _host_and_port(text: str) -> tuple[str, str]:
    place = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*))(?::(\d*))?", text)
    if place is None:
        raise ArgumentError("no host and port")
    return place[1] or place[2], place[3] or ""


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


def is_unavailable(error: BaseException) -> bool:
    """Whether the same transaction, tried again later on a new connection, may go through.

    No server, no answer, a lost connection, one that takes no writes, a full disk, crossed transactions. Whether
    what failed has been committed is not known. Anything else is a mistake of the program or of the data.
    """
    if isinstance(error, sa.exc.TimeoutError):  # all of this process's connections were busy
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = _sqlstate(error)
    if code is None:  # the driver's own: it could not connect
        return isinstance(error, sa.exc.OperationalError)
    return code in _TRY_AGAIN_LATER or code.startswith("08")


def reason_of(error: BaseException) -> str:
    """What a database error says, on one line and without statement or parameters: what is wrong, in words first."""
    driver = getattr(error, "orig", None) or error
    said = _said(str(driver)) or type(driver).__name__
    words = _TRY_AGAIN_LATER.get(_sqlstate(error) or "")
    return f"{words} ({said})" if words else said


def _said(text: str) -> str:
    """Without the further lines of advice: libpq indents them, the server gives them names."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_ADVICE)]
    return "; ".join(line.strip().rstrip(".") for line in lines)


def _sqlstate(error: BaseException) -> str | None:
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    return None if code is None else str(code)


def _open_embedded() -> Database:
    if sys.platform == "win32":
        raise DatabaseError(
            "the embedded Postgres does not run on Windows: use WSL, or set TUNE_DATABASE_URL to a server"
        )
    from tunesvc.db.embedded.embedded_server import EmbeddedServer

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
        with database.long_transaction() as connection:
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
