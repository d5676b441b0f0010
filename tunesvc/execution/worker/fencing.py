"""Whom a worker obeys: the coordinator with the highest fencing token that it has seen; and whether anybody calls.

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
        """`token`: of the coordinator that the worker was started by."""
        self._lock = threading.Lock()
        self._token = token
        self._open = 0
        self._spoke = True
        self._over = False

    def holds(self, token: int) -> bool:
        """Whether nobody with a higher token has called yet."""
        with self._lock:
            return token >= self._token

    @contextmanager
    def call(self, token: int) -> Iterator[bool]:
        """A call under a token, as long as it takes; gives whether it is to be obeyed."""
        with self._lock:
            admitted = token >= self._token
            if admitted:
                self._token, self._spoke = token, True
                self._open += 1
        try:
            yield admitted
        finally:
            if admitted:
                with self._lock:
                    self._open -= 1
                    self._spoke = True

    @property
    def is_over(self) -> bool:
        """Whether nobody called for so long that the worker is about to end."""
        return self._over

    def watch(self, orphan_s: float, then: Callable[[], None]) -> None:
        """Do something, once, when nobody has called for so long."""
        threading.Thread(target=self._watch, args=(orphan_s, then), name="orphan", daemon=True).start()

    def _watch(self, orphan_s: float, then: Callable[[], None]) -> None:
        # Ticks, not a clock: a process that was frozen for hours has calls waiting, which have to be heard first.
        tick_s = min(_TICK_S, orphan_s / 10)
        alone_s = 0.0
        while not self._give_up(alone_s >= orphan_s):
            time.sleep(tick_s)
            alone_s = 0.0 if self._heard() else alone_s + tick_s
        then()

    def _heard(self) -> bool:
        """Whether somebody has called since the last time, or is waiting for an answer."""
        with self._lock:
            spoke, self._spoke = self._spoke or self._open > 0, False
            return spoke

    def _give_up(self, alone: bool) -> bool:
        with self._lock:
            self._over = alone and not self._spoke and not self._open
            return self._over
