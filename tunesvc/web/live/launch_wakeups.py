"""Wakes requests that wait for launches: one listening thread per server, however many wait.

A notification wakes only whom it concerns: one agent, or a few of those with a free slot. Each of
those that finds something wakes the next few. So the cost of a launch does not grow with the number
of agents that wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.notifications import Listener
from tunesvc.errors import DatabaseUnavailable

RECHECK_S = 10.0
"""Longest wait without a look at the database, for notifications that were lost."""
WOKEN_MAX = 4
"""Most requests that are woken at a time for launches of a study."""
_WAIT_S = 1.0


class LaunchWaiter:
    """A request that waits. Belongs to its event loop."""

    def __init__(self, study_id: int, agent_id: int) -> None:
        self.study_id = study_id
        self.agent_id = agent_id
        self.takes_launches = True
        """True if it may take a launch that is offered."""
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    @property
    def is_woken(self) -> bool:
        """True if it was woken and has not looked yet."""
        return self._event.is_set()

    def clear(self) -> None:
        """Note that it looks now."""
        self._event.clear()

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is woken, up to `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout_s)

    def wake(self) -> None:
        """Wake it. Any thread may call this."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._event.set)


class LaunchWakeups:
    """Requests that wait. The thread starts with the first one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._waiters: dict[LaunchWaiter, None] = {}
        """In the order in which they began to wait."""
        self._is_running = False

    @contextmanager
    def watch(self, study_id: int, agent_id: int) -> Iterator[LaunchWaiter]:
        """Yield a waiter for an agent. In the event loop only."""
        waiter = LaunchWaiter(study_id, agent_id)
        with self._lock:
            self._waiters[waiter] = None
            is_first, self._is_running = not self._is_running, True
        if is_first:
            threading.Thread(target=self._run, name="launch-wakeups", daemon=True).start()
        try:
            yield waiter
        finally:
            with self._lock:
                del self._waiters[waiter]

    def wake_takers(self, study_id: int) -> None:
        """Wake a few requests that may take a launch of a study. Any thread may call this."""
        with self._lock:
            takers = [
                waiter
                for waiter in self._waiters
                if waiter.study_id == study_id and waiter.takes_launches and not waiter.is_woken
            ]
        for waiter in takers[:WOKEN_MAX]:
            waiter.wake()

    def _run(self) -> None:
        """Listen while a request waits."""
        listener: Listener | None = None
        while self._has_waiters():
            try:
                if listener is None or listener.is_lost:
                    listener = self._listen()
            except DatabaseUnavailable:
                threading.Event().wait(_WAIT_S)
                continue
            for channel, id_ in listener.wait_for_any(_WAIT_S):
                if channel == notifications.AGENT_LAUNCHES:
                    self.wake_takers(id_)
                else:
                    self._wake_agent(id_)
        if listener is not None:
            listener.close()

    def _listen(self) -> Listener:
        with translate_unavailable():
            channels = notifications.AGENT_LAUNCHES, notifications.AGENT_CALLS
            return Listener(self._database, *channels)

    def _has_waiters(self) -> bool:
        with self._lock:
            self._is_running = bool(self._waiters)
            return self._is_running

    def _wake_agent(self, agent_id: int) -> None:
        with self._lock:
            waiters = [waiter for waiter in self._waiters if waiter.agent_id == agent_id]
        for waiter in waiters:
            waiter.wake()
