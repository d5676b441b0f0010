"""The bell of a worker: rung when an attempt says something, heard a little later, so that what follows travels along.

Its lock guards all that is rung for. Imports no Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BATCH_WINDOW_S = 0.02
"""How long what is said travels together with what follows it. A call costs as much as a hundred events in it."""


class BatchSignal:
    """Any thread may ring it and wait for it."""

    def __init__(self, window_s: float = 0.0) -> None:
        self._window_s = window_s
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._urgent = threading.Condition(self.lock)
        self._due_s: float | None = None

    def notify(self) -> None:
        """Something was said."""
        with self.lock:
            self._changed.notify_all()

    def notify_urgent(self) -> None:
        """Somebody may wait for what was said, or another one listens now."""
        with self.lock:
            self._changed.notify_all()
            self._urgent.notify_all()

    def wait(self, is_ready: Callable[[], bool], is_urgent: Callable[[], bool], timeout_s: float) -> None:
        """Wait up to `timeout_s` for something that is said, and then for more while it is not urgent.

        What one listener has begun to gather another one may take; it waits for no longer. With the lock held.
        """
        if not self._changed.wait_for(is_ready, timeout_s) or is_urgent():
            return
        if self._due_s is None:
            self._due_s = time.monotonic() + self._window_s
        self._urgent.wait_for(is_urgent, max(0.0, self._due_s - time.monotonic()))

    def reset(self) -> None:
        """What was said is taken; what follows gathers anew."""
        self._due_s = None
