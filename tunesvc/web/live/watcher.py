"""Learns which studies have changed, and whether the database answers: by notification, and by looking.

One thread per dashboard, however many pages are open. A notification arrives with the commit that it tells of. Lost
ones (a connection that broke, a pooler that swallows LISTEN) are made up for by looking at all studies' counters: once
a second while there is no listening connection, every few seconds while there is one.
"""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often to look while nothing listens, and how long to wait for a notification at a time."""
LISTENING_LOOK_S = 10.0
"""How often to look while something listens."""


class ChangeListener(Protocol):
    """Is told; called from the watching thread and must return at once."""

    def changed(self, studies: frozenset[int]) -> None:
        """Something was committed for these studies."""
        ...

    def stale(self, since: datetime, reason: str) -> None:
        """The database is away; what pages show is as old as `since`."""
        ...

    def fresh(self) -> None:
        """It is back."""
        ...


class Watcher:
    """Steps of looking and listening. `start` repeats them in a thread; tests call `step`."""

    def __init__(
        self,
        database: Database,
        audience: ChangeListener,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._audience = audience
        self._clock = clock or SystemClock()
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        """Held while the listener is closed or woken."""
        self._pulse: Mapping[int, str] | None = None
        self._looked_s = -1e9
        self._answered_at = datetime.now(UTC)
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch until `stop`."""
        self._thread = threading.Thread(target=self._run, name="tunesvc-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Repeatable."""
        self._stopping.set()
        with self._lock:
            if self._listener is not None:
                self._listener.wake()
        if self._thread is not None:
            self._thread.join(LOOK_S + 1)

    def step(self, wait_s: float = LOOK_S) -> None:
        """Wait for notifications, and look where that is due. Never raises."""
        try:
            with translate_unavailable():
                heard = self._listen(wait_s)
                changed = heard | self._look()
        except Exception as error:  # noqa: BLE001  # whatever it is: pages have to know, and the next look may succeed
            if not isinstance(error, DatabaseUnavailable) and not self._trouble:
                _log.exception("changes cannot be looked for")
            self._drop_listener()
            if not self._trouble:
                self._audience.stale(self._answered_at, str(error))
            self._trouble = str(error)
            self._database.ensure_running()  # an embedded server that stopped under the dashboard starts again
            self._stopping.wait(wait_s)
            return
        self._answered_at = datetime.now(UTC)
        if self._trouble:
            self._trouble = ""
            self._audience.fresh()
        if changed:
            self._audience.changed(frozenset(changed))

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.step()
        finally:
            self._drop_listener()

    def _listen(self, wait_s: float) -> set[int]:
        if self._listener is None:
            self._listener = Listener(self._database)
            self._looked_s = -1e9  # what was notified before is made up for
            return set()
        heard = self._listener.wait(wait_s)
        if self._listener.is_lost:
            self._drop_listener()
        return heard

    def _look(self) -> set[int]:
        now = self._clock.now()
        if now - self._looked_s < (LOOK_S if self._listener is None else LISTENING_LOOK_S):
            return set()
        self._looked_s = now
        before, self._pulse = self._pulse, change_tokens(self._database)
        if before is None:
            return set()
        return {study for study in before.keys() | self._pulse.keys() if before.get(study) != self._pulse.get(study)}

    def _drop_listener(self) -> None:
        with self._lock:
            if self._listener is not None:
                self._listener.close()
            self._listener = None
