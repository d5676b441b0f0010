"""File locks that the kernel releases when their process dies.

`flock` on a file that is never removed. Descriptors are closed on exec, so no program that we start
keeps a lock by accident. A forked process does, and the lock lasts until both have closed it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """A held lock on a file."""

    def __init__(self, path: Path) -> None:
        self._fd: int | None = os.open(
            path,
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )

    @classmethod
    def shared(cls, path: Path) -> FileLock:
        """Take a shared lock; wait while it is held exclusively."""
        lock = cls(path)
        fcntl.flock(lock.fileno(), fcntl.LOCK_SH)
        return lock

    @classmethod
    def exclusive(cls, path: Path) -> FileLock:
        """Take an exclusive lock; wait for all others."""
        lock = cls(path)
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        return lock

    @classmethod
    def if_free(cls, path: Path) -> FileLock | None:
        """Take an exclusive lock, or return None when it is held."""
        lock = cls(path)
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        return lock

    def fileno(self) -> int:
        """Return the descriptor, to pass the lock on to a program."""
        if self._fd is None:
            raise ValueError("the lock was released")
        return self._fd

    def release(self) -> None:
        """Close the file; unlocking it would release a forked process's lock too. Repeatable."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
