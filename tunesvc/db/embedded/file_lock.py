"""Locks that the kernel frees when their holder dies, however it dies.

`flock` on a file that is never removed. A descriptor is closed on exec, so no program that we start holds a lock
by accident; a forked copy of this process does, and the lock lasts until both have closed it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """One holding of a lock file."""

    def __init__(self, path: Path) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @classmethod
    def shared(cls, path: Path) -> FileLock:
        """Hold it together with other sharers; waits while somebody holds it alone."""
        lock = cls(path)
        fcntl.flock(lock.fileno(), fcntl.LOCK_SH)
        return lock

    @classmethod
    def exclusive(cls, path: Path) -> FileLock:
        """Hold it alone; waits for all others."""
        lock = cls(path)
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        return lock

    @classmethod
    def if_free(cls, path: Path) -> FileLock | None:
        """Hold it alone, or None when anybody holds it."""
        lock = cls(path)
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        return lock

    def fileno(self) -> int:
        """The descriptor, for handing the lock on to a program."""
        if self._fd is None:
            raise ValueError("the lock was released")
        return self._fd

    def release(self) -> None:
        """Let go. Closes instead of unlocking, which would also free a forked copy's hold. Repeatable."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
