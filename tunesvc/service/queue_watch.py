"""Watches the queue of submitted studies, so that a server reacts before its next look."""

from __future__ import annotations

import threading
import time

from tunesvc.db import notifications
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.notifications import Listener
from tunesvc.errors import DatabaseUnavailable

SLICE_S = 0.2
"""Longest time until an interrupt is noticed."""


class QueueWatch:
    """Waits for changes of the queue. Belongs to one thread.

    A notification may get lost, with the connection: then a wait takes its whole time.
    """

    def __init__(self, database: Database, interrupt: threading.Event) -> None:
        self._database = database
        self._interrupt = interrupt
        self._listener: Listener | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as the queue changes; False after the time, or if interrupted."""
        until_s = time.monotonic() + timeout_s
        while not self._interrupt.is_set() and (left_s := until_s - time.monotonic()) > 0:
            listener = self._listening()
            if listener is None:
                self._interrupt.wait(left_s)
            elif listener.wait(min(left_s, SLICE_S)):
                return True
        return False

    def close(self) -> None:
        """Close its connection. Repeatable."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _listening(self) -> Listener | None:
        """Return a connected listener; None while there can be none."""
        if self._listener is not None and self._listener.is_lost:
            self.close()
        if self._listener is None:
            try:
                with translate_unavailable():
                    self._listener = Listener(self._database, notifications.QUEUE)
            except DatabaseUnavailable:
                return None
        return self._listener
