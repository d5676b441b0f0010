"""Fencing of a worker: it obeys the highest token, and ends if no coordinator calls.

Imports no Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TICK_S = 1.0


class TokenFence:
    """The fence of one worker. Any thread may use it."""

    def __init__(self, token: int) -> None:
        """`token` is that of the coordinator that started the worker."""
        self._lock = threading.Lock()
        self._token = token
        self._open_calls = 0
        self._was_called = True
        self._is_expired = False

    def is_current(self, token: int) -> bool:
        """Return True if no call with a higher token has arrived."""
        with self._lock:
            return token >= self._token

    @contextmanager
    def admit(self, token: int) -> Iterator[bool]:
        """Register a call for its duration. Yields True if the worker must obey it."""
        with self._lock:
            admitted = token >= self._token
            if admitted:
                self._token, self._was_called = token, True
                self._open_calls += 1
        try:
            yield admitted
        finally:
            if admitted:
                with self._lock:
                    self._open_calls -= 1
                    self._was_called = True

    @property
    def is_expired(self) -> bool:
        """True if no call has arrived for so long that the worker is about to end."""
        return self._is_expired

    def watch(self, orphan_s: float, on_orphaned: Callable[[], None]) -> None:
        """Call `on_orphaned` once if no call arrives for `orphan_s`."""
        watcher = threading.Thread(
            target=self._watch,
            args=(orphan_s, on_orphaned),
            name="orphan",
            daemon=True,
        )
        watcher.start()

    def _watch(self, orphan_s: float, on_orphaned: Callable[[], None]) -> None:
        # Counts ticks instead of reading a clock: a process that was frozen for hours must first
        # receive the calls that waited for it.
        tick_s = min(_TICK_S, orphan_s / 10)
        silent_s = 0.0
        while not self._expire(silent_s >= orphan_s):
            time.sleep(tick_s)
            silent_s = 0.0 if self._take_calls() else silent_s + tick_s
        on_orphaned()

    def _take_calls(self) -> bool:
        """Return True if a call has arrived since the last check, or is still open."""
        with self._lock:
            was_called = self._was_called or self._open_calls > 0
            self._was_called = False
            return was_called

    def _expire(self, is_orphan: bool) -> bool:
        with self._lock:
            self._is_expired = is_orphan and not self._was_called and not self._open_calls
            return self._is_expired
