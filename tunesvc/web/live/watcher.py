"""Watches the database for changed studies and for outages, by notifications and by polling.

One thread per dashboard, however many pages are open. A notification arrives with its commit.
Polling all studies' change tokens finds changes whose notification was lost (by a broken
connection, or a pooler that does not support LISTEN): every second without a listening connection,
every few seconds with one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.notifications import Listener
from tunesvc.errors import DatabaseUnavailable
from tunesvc.queries.change_token import change_tokens
from tunesvc.util.clock import Clock, SystemClock
from tunesvc.util.logs import get_logger

_log = get_logger(__name__)

POLL_S = 1.0
"""Polling interval without a listening connection, and longest wait for a notification."""
LISTENING_POLL_S = 10.0
"""Polling interval with a listening connection."""


class ChangeListener(Protocol):
    """Receives changes. Called from the watching thread; must return at once."""

    def changed(self, studies: frozenset[int]) -> None:
        """Handle a commit for these studies."""
        ...

    def stale(self, since: datetime, reason: str) -> None:
        """Handle an outage of the database: pages show data as of `since`."""
        ...

    def fresh(self) -> None:
        """Handle the end of an outage."""
        ...


class Watcher:
    """Steps of listening and polling. `start` repeats them in a thread; tests call `step`."""

    def __init__(
        self,
        database: Database,
        receiver: ChangeListener,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._receiver = receiver
        self._clock = clock or SystemClock()
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        """Held while the listener is closed or woken."""
        self._tokens: Mapping[int, str] | None = None
        self._polled_s = -1e9
        self._available_at = datetime.now(UTC)
        self._outage = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch until `stop`."""
        self._thread = threading.Thread(
            target=self._run,
            name="tunesvc-watch",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Repeatable."""
        self._stopping.set()
        with self._lock:
            if self._listener is not None:
                self._listener.wake()
        if self._thread is not None:
            self._thread.join(POLL_S + 1)

    def step(self, wait_s: float = POLL_S) -> None:
        """Wait for notifications, and poll when due. Never raises."""
        try:
            with translate_unavailable():
                notified = self._listen(wait_s)
                changed = notified | self._poll()
        # Any error: pages have to show it, and the next step may succeed.
        except Exception as error:  # noqa: BLE001
            self._on_outage(error)
            self._stopping.wait(wait_s)
            return
        self._available_at = datetime.now(UTC)
        if self._outage:
            self._outage = ""
            self._receiver.fresh()
        if changed:
            self._receiver.changed(frozenset(changed))

    def _on_outage(self, error: Exception) -> None:
        if not isinstance(error, DatabaseUnavailable) and not self._outage:
            _log.exception("changes cannot be looked for")
        self._drop_listener()
        if not self._outage:
            self._receiver.stale(self._available_at, str(error))
        self._outage = str(error)
        # Restart an embedded server that has stopped.
        self._database.ensure_running()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.step()
        finally:
            self._drop_listener()

    def _listen(self, wait_s: float) -> set[int]:
        if self._listener is None:
            self._listener = Listener(self._database)
            self._polled_s = -1e9  # poll at once, for notifications that were missed
            return set()
        notified = self._listener.wait(wait_s)
        if self._listener.is_lost:
            self._drop_listener()
        return notified

    def _poll(self) -> set[int]:
        now = self._clock.now()
        interval_s = POLL_S if self._listener is None else LISTENING_POLL_S
        if now - self._polled_s < interval_s:
            return set()
        self._polled_s = now
        before = self._tokens
        tokens = change_tokens(self._database)
        self._tokens = tokens
        if before is None:
            return set()
        return {id_ for id_ in before.keys() | tokens.keys() if before.get(id_) != tokens.get(id_)}

    def _drop_listener(self) -> None:
        with self._lock:
            if self._listener is not None:
                self._listener.close()
            self._listener = None
