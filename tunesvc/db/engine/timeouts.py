"""Bounded waits: shuts down the connection to a server that does not answer.

A peer that accepts packets and never answers (a half-open connection, a hung proxy, a frozen
server) blocks libpq forever: TCP sees no error, and a statement timeout is enforced by the server.
So one thread watches the clock and shuts down the socket, after which the driver raises its usual
error for a lost connection.

Implemented as psycopg2's connection class, which sees all traffic: statements, commits, the pool's
pings. `psycopg2.extensions.set_wait_callback` would change every connection of the process. Imports
nothing of tunesvc.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from psycopg2 import Error, OperationalError, extensions

from tunesvc.errors import BadName

FRESH_S = 1.0
"""Time for which an answer proves that the connection works."""


class Watchdog:
    """Shuts down connections that wait too long. Its thread runs only while there are waits."""

    def __init__(self, answer_s: float, ping_s: float) -> None:
        """`answer_s`, `ping_s`: longest wait for a statement and a ping; the second is shorter."""
        self.ping_s = ping_s
        self._answer_s = answer_s
        self.reset()

    def reset(self) -> None:
        """Drop all waits, in a forked process, which inherits neither the thread nor the waits."""
        self._lock = threading.Lock()
        self._deadlines: dict[WaitLimit, float] = {}
        self._thread: threading.Thread | None = None
        self._look_now = threading.Event()

    def connect(self, dsn: str) -> BoundedConnection:
        """Open a connection, as psycopg2's `connection_factory`; `connect_timeout` bounds this."""
        connection = BoundedConnection(dsn)
        connection.wait_limit = WaitLimit(self, connection.fileno(), self._answer_s)
        connection.ping_s = self.ping_s
        return connection

    def close(self) -> None:
        """End the thread once nothing waits. May be repeated; a later wait starts it again."""
        self._look_now.set()

    def begin(self, wait_limit: WaitLimit) -> None:
        """Register a wait that begins."""
        with self._lock:
            self._deadlines[wait_limit] = time.monotonic() + wait_limit.limit_s
            if self._thread is None:
                self._start()

    def end(self, wait_limit: WaitLimit) -> None:
        """Remove a wait; after this returns, its connection is safe from being shut down."""
        with self._lock:
            self._deadlines.pop(wait_limit, None)

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run,
            name="tunesvc-watchdog",
            daemon=True,
        )
        # RuntimeError: the interpreter is exiting and starts no threads.
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while (pause_s := self._cut_overdue()) is not None:
            self._look_now.wait(pause_s)
            self._look_now.clear()

    def _cut_overdue(self) -> float | None:
        """Shut down overdue connections; return the time until the next check, or None."""
        with self._lock:
            now = time.monotonic()
            overdue = [wait for wait, deadline in self._deadlines.items() if deadline <= now]
            for wait in overdue:
                del self._deadlines[wait]
                wait.shut_down()
            if not self._deadlines:
                self._thread = None
                return None
            # A wait that begins meanwhile lasts at least `ping_s`.
            return min(min(self._deadlines.values()) - now, self.ping_s)


class WaitLimit:
    """Limit of one connection's waits for an answer; a context manager around each wait."""

    def __init__(self, watchdog: Watchdog, fd: int, limit_s: float) -> None:
        self.limit_s = limit_s
        self.answered_at = time.monotonic()
        """Time at which the last wait ended; the first one was for the connection."""
        self._watchdog = watchdog
        # A descriptor of our own: libpq may close its own, and the number may be reused by then.
        self._socket = socket.socket(fileno=os.dup(fd))
        self._is_out = False

    @contextmanager
    def lasting(self, limit_s: float) -> Iterator[None]:
        """Change the limit for a block; not below the watchdog's `ping_s`."""
        usual_s, self.limit_s = self.limit_s, limit_s
        try:
            yield
        finally:
            self.limit_s = usual_s

    def shut_down(self) -> None:
        """Shut down the socket, so that the waiting driver raises an error."""
        self._is_out = True
        with suppress(OSError):  # The socket is closed already.
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_quiet(self) -> bool:
        """Return True if the server has sent nothing unexpected, such as the end of the stream."""
        try:
            return not select.select([self._socket], [], [], 0)[0]
        except (OSError, ValueError):
            # ValueError: it is closed, or its number is too large for `select`.
            return False

    def close(self) -> None:
        """Close the socket. May be repeated."""
        self._socket.close()

    def __enter__(self) -> None:
        self._watchdog.begin(self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._watchdog.end(self)
        self.answered_at = time.monotonic()
        if self._is_out and isinstance(error, Error):
            raise OperationalError(f"no answer within {self.limit_s:.0f} s") from error


_UNSTORABLE = "a text holds NUL or is no valid Unicode: it can be neither stored nor looked for"


class BoundedCursor(extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor with its connection's wait limit."""

    def execute(self, query: str, vars: object = None) -> None:
        with self.connection.wait_limit:
            try:
                super().execute(query, vars)
            except ValueError as error:
                if "NUL" in str(error) or isinstance(error, UnicodeEncodeError):
                    raise BadName(_UNSTORABLE) from None
                raise

    def executemany(self, query: str, vars_list: Sequence[object]) -> None:
        with self.connection.wait_limit:
            super().executemany(query, vars_list)


class BoundedConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """A connection with bounded waits, made by `Watchdog.connect`."""

    wait_limit: WaitLimit
    ping_s: float
    autocommit: bool

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.cursor_factory = BoundedCursor
        self._is_new = True

    def is_fresh(self) -> bool:
        """Return True after a recent answer without bad news; a silent loss goes unnoticed."""
        age_s = time.monotonic() - self.wait_limit.answered_at
        return age_s < FRESH_S and self.wait_limit.is_quiet()

    def ping(self, *, even_if_fresh: bool = True) -> None:
        """Ping the server, outside of any transaction; a new connection needs none.

        Raises:
            OperationalError: no answer within `ping_s`; the connection is unusable.
        """
        is_new, self._is_new = self._is_new, False
        if is_new or (not even_if_fresh and self.is_fresh()):
            return
        autocommit = self.autocommit
        with self.wait_limit.lasting(self.ping_s):
            self.autocommit = True
            self.cursor().execute("SELECT 1")
            self.autocommit = autocommit

    def commit(self) -> None:
        with self.wait_limit:
            super().commit()

    def rollback(self) -> None:
        with self.wait_limit:
            super().rollback()

    def close(self) -> None:
        with self.wait_limit:
            super().close()
        self.wait_limit.close()
