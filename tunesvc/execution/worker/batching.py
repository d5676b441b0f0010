"""A condition that batches events: a waiter also gets those that follow the first one.

Its lock guards the outboxes that notify it. Imports no Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BATCH_WINDOW_S = 0.02
"""Events within this time of the first travel in one reply.

A call costs as much as a hundred events.
"""


class BatchSignal:
    """Batches events for the next poll. Any thread may notify it and wait for it."""

    def __init__(self, window_s: float = 0.0) -> None:
        self._window_s = window_s
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._urgent = threading.Condition(self.lock)
        self._due_s: float | None = None

    def notify(self) -> None:
        """Wake waiters: there is an event."""
        with self.lock:
            self._changed.notify_all()

    def notify_urgent(self) -> None:
        """Wake waiters, also inside the batch window: a reply may be urgent now."""
        with self.lock:
            self._changed.notify_all()
            self._urgent.notify_all()

    def wait(
        self,
        is_ready: Callable[[], bool],
        is_urgent: Callable[[], bool],
        timeout_s: float,
    ) -> None:
        """Wait up to `timeout_s` for an event, then until the batch window ends.

        The second wait ends early if a reply is urgent.

        Call with the lock held. Concurrent waiters share one batch window.
        """
        if not self._changed.wait_for(is_ready, timeout_s) or is_urgent():
            return
        if self._due_s is None:
            self._due_s = time.monotonic() + self._window_s
        self._urgent.wait_for(is_urgent, max(0.0, self._due_s - time.monotonic()))

    def reset(self) -> None:
        """Start a new batch window with the next event."""
        self._due_s = None
