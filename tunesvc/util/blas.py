"""Thread limit of numpy's BLAS while studies run, a setting of the whole process.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


class _Limit:
    """Set by every user, since libraries may have been loaded meanwhile; reset by the last one."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._users = 0
        self._limits: list[threadpool_limits] = []

    def enter(self) -> None:
        with self._changing:
            self._users += 1
            self._limits.append(threadpool_limits(1, "blas"))

    def leave(self) -> None:
        with self._changing:
            self._users -= 1
            while self._users == 0 and self._limits:
                self._limits.pop().restore_original_limits()


_limit = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread: more would compete with training. Several threads may enter."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()
