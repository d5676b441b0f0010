"""Answers in bounded time: a connection whose server has fallen silent is cut, so that the driver gives up.

A peer that takes packets and answers none (a half-open connection, a hung proxy, a frozen server) keeps libpq waiting
for ever: TCP sees nothing wrong, and a statement timeout is for the server to keep. So one thread looks at the clock
and shuts the socket down under the driver, which then raises what it raises for any lost connection.

Hooked in as psycopg2's connection class, which sees everything that goes over the wire: statements, commits, the
pool's pings. Not by `psycopg2.extensions.set_wait_callback`, which would change every connection of the process.
Imports nothing of tunesvc.
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

FRESH_S = 1.0
"""How long an answer counts as a sign of life."""


class Watchdog:
    """Cuts connections that wait too long for an answer. Its thread lives while there are waits, or a bit longer."""

    def __init__(self, answer_s: float, ping_s: float) -> None:
        """How long a statement and a ping may take; the second is the shorter one."""
        self.ping_s = ping_s
        self._answer_s = answer_s
        self.begin_anew()

    def begin_anew(self) -> None:
        """Watch nothing: for a forked copy of this process, which inherits neither thread nor waits."""
        self._lock = threading.Lock()
        self._deadlines: dict[WaitLimit, float] = {}
        self._thread: threading.Thread | None = None
        self._look_now = threading.Event()

    def connect(self, dsn: str) -> BoundedConnection:
        """psycopg2's `connection_factory`. That the connection itself comes in time is `connect_timeout`'s part."""
        connection = BoundedConnection(dsn)
        connection.patience = WaitLimit(self, connection.fileno(), self._answer_s)
        connection.ping_s = self.ping_s
        return connection

    def close(self) -> None:
        """End the thread as soon as nothing waits. Repeatable; a later wait starts it again."""
        self._look_now.set()

    def begin(self, patience: WaitLimit) -> None:
        """A wait begins."""
        with self._lock:
            self._deadlines[patience] = time.monotonic() + patience.limit_s
            if self._thread is None:
                self._start()

    def end(self, patience: WaitLimit) -> None:
        """The wait is over: once this returns, its connection is not going to be cut."""
        with self._lock:
            self._deadlines.pop(patience, None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="tunesvc-watchdog", daemon=True)
        with suppress(RuntimeError):  # the interpreter ends, and takes no new threads
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while (pause_s := self._cut_overdue()) is not None:
            self._look_now.wait(pause_s)
            self._look_now.clear()

    def _cut_overdue(self) -> float | None:
        """Cut what has waited for too long; returns how long nothing can be due, or None when nothing waits."""
        with self._lock:
            now = time.monotonic()
            for patience in [each for each, deadline in self._deadlines.items() if deadline <= now]:
                del self._deadlines[patience]
                patience.run_out()
            if not self._deadlines:
                self._thread = None
                return None
            # no wait that begins meanwhile has less than `ping_s`
            return min(min(self._deadlines.values()) - now, self.ping_s)


class WaitLimit:
    """How long one connection waits for an answer. A context manager around each wait."""

    def __init__(self, watchdog: Watchdog, fd: int, limit_s: float) -> None:
        self.limit_s = limit_s
        self.answered_at = time.monotonic()
        """When the last wait ended; the first was for the connection itself."""
        self._watchdog = watchdog
        # a descriptor of our own: libpq closes its, and the number may be another file's by the time we cut
        self._socket = socket.socket(fileno=os.dup(fd))
        self._is_out = False

    @contextmanager
    def lasting(self, limit_s: float) -> Iterator[None]:
        """For waits that may be longer, or shorter; not below the watchdog's `ping_s`."""
        usual_s, self.limit_s = self.limit_s, limit_s
        try:
            yield
        finally:
            self.limit_s = usual_s

    def run_out(self) -> None:
        """Cut the connection under whoever waits for it."""
        self._is_out = True
        with suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_quiet(self) -> bool:
        """Whether the server has said nothing unasked: a server that leaves says so, or the end of the stream does."""
        try:
            return not select.select([self._socket], [], [], 0)[0]
        except (OSError, ValueError):  # ValueError: it is closed, or one too many to be selected
            return False

    def close(self) -> None:
        """Let go of the socket. Repeatable."""
        self._socket.close()

    def __enter__(self) -> None:
        self._watchdog.begin(self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._watchdog.end(self)
        self.answered_at = time.monotonic()
        if self._is_out and isinstance(error, Error):
            raise OperationalError(f"no answer within {self.limit_s:.0f} s") from error


class BoundedCursor(extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor that waits as long as its connection may."""

    def execute(self, query: str, vars: object = None) -> None:
        with self.connection.patience:
            super().execute(query, vars)

    def executemany(self, query: str, vars_list: Sequence[object]) -> None:
        with self.connection.patience:
            super().executemany(query, vars_list)


class BoundedConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """A connection that waits for a bounded time, made by `Watchdog.connect`."""

    patience: WaitLimit
    ping_s: float
    autocommit: bool

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.cursor_factory = BoundedCursor
        self._is_new = True

    def is_fresh(self) -> bool:
        """Whether it gave a sign of life just now and no bad news since. A peer gone without a word goes unnoticed."""
        return time.monotonic() - self.patience.answered_at < FRESH_S and self.patience.is_quiet()

    def ping(self, *, even_if_fresh: bool = True) -> None:
        """Ask for a sign of life, outside of any transaction; a connection just made has given one.

        Raises:
            OperationalError: there is none within `ping_s`; the connection is of no more use.
        """
        is_new, self._is_new = self._is_new, False
        if is_new or (not even_if_fresh and self.is_fresh()):
            return
        autocommit = self.autocommit
        with self.patience.lasting(self.ping_s):
            self.autocommit = True
            self.cursor().execute("SELECT 1")
            self.autocommit = autocommit

    def commit(self) -> None:
        with self.patience:
            super().commit()

    def rollback(self) -> None:
        with self.patience:
            super().rollback()

    def close(self) -> None:
        with self.patience:
            super().close()
        self.patience.close()
