"""Wakes requests that wait for launches: one listening thread per server, however many wait."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.notifications import Listener
from tunesvc.errors import DatabaseUnavailable

RECHECK_S = 5.0
"""Longest wait without a look at the database, for notifications that were lost."""
_WAIT_S = 1.0


class LaunchWakeups:
    """Requests that wait, by study. The thread starts with the first one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiting: defaultdict[int, set[_Waiter]] = defaultdict(set)
        self._is_running = False

    @contextmanager
    def watch(self, study_id: int) -> Iterator[asyncio.Event]:
        """Yield an event that is set at each notification of a study. In the event loop only."""
        waiter = _Waiter()
        with self._lock:
            self._waiting[study_id].add(waiter)
            is_first, self._is_running = not self._is_running, True
        if is_first:
            threading.Thread(target=self._run, name="launch-wakeups", daemon=True).start()
        try:
            yield waiter.event
        finally:
            with self._lock:
                self._waiting[study_id].discard(waiter)
                if not self._waiting[study_id]:
                    del self._waiting[study_id]

    def _run(self) -> None:
        """Listen while somebody waits."""
        listener: Listener | None = None
        while self._has_waiters():
            try:
                if listener is None or listener.is_lost:
                    with translate_unavailable():
                        listener = Listener(self._database, notifications.AGENT_LAUNCHES)
            except DatabaseUnavailable:
                threading.Event().wait(_WAIT_S)
                continue
            self._wake(listener.wait(_WAIT_S))
        if listener is not None:
            listener.close()

    def _has_waiters(self) -> bool:
        with self._lock:
            self._is_running = bool(self._waiting)
            return self._is_running

    def _wake(self, studies: set[int]) -> None:
        with self._lock:
            waiters = [waiter for study in studies for waiter in self._waiting.get(study, ())]
        for waiter in waiters:
            with suppress(RuntimeError):  # its loop is closed
                waiter.loop.call_soon_threadsafe(waiter.event.set)


class _Waiter:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()
