"""Frees the memory of an attempt before the next one begins in the same process.

Models and their optimizers form reference cycles, which only a garbage collection frees, and GPU
libraries cache freed memory. Imports no torch. If torch is loaded, its caches are emptied.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress

from tunesvc.util.clock import Clock

_SHARE = 0.02
"""Share of the time that collections may take, unless memory grows."""
_INTERVAL_S = 1.0
"""Time between collections, at least, unless memory grows. Attempts may be shorter by far."""
_GROWTH_BYTES = 32 * 2**20
_SWOLLEN_BYTES = 256 * 2**20
"""A worker leaks if it has grown by this much, and to twice its size, since its first attempt."""
KEEPS_MEMORY = "[tunesvc: this worker keeps memory of earlier trials"
"""Begins the note in an attempt's log. `tune doctor` searches for it."""


class Garbage:
    """Collects garbage between attempts, but not so often that short attempts have to wait."""

    def __init__(
        self,
        clock: Clock,
        resident: Callable[[], int] | None = None,
    ) -> None:
        """`resident` returns the memory of this process in bytes."""
        self._clock = clock
        self._resident = resident or _ResidentMemory()
        self._due_s = clock.now()
        self._bytes = self._at_first = self._noted = 0

    @property
    def is_due(self) -> bool:
        """True if a collection is worth its time now."""
        has_grown = self._resident() >= self._bytes + _GROWTH_BYTES
        return has_grown or self._clock.now() >= self._due_s

    def collect(self) -> None:
        """Collect garbage and empty the caches of GPU libraries."""
        started_s = self._clock.now()
        gc.collect()
        _empty_caches()
        ended_s = self._clock.now()
        self._due_s = ended_s + max(_INTERVAL_S, (ended_s - started_s) / _SHARE)
        self._bytes = self._resident()
        self._at_first = self._at_first or self._bytes

    def note(self) -> str:
        """Return a note about memory that collections do not free, or an empty text.

        Notes each doubling once.
        """
        limit = max(
            2 * self._at_first,
            self._at_first + _SWOLLEN_BYTES,
            2 * self._noted,
        )
        if not self._at_first or self._bytes < limit:
            return ""
        self._noted = self._bytes
        return (
            f"{KEEPS_MEMORY}: it holds {self._bytes / 2**30:.1f} GiB, and held"
            f" {self._at_first / 2**30:.1f} GiB after its first. `environment: {{isolation:"
            " process}` gives each trial a process of its own]\n"
        )


class _ResidentMemory:
    """Reads the memory of this process, on Linux in microseconds from a file that stays open."""

    def __init__(self) -> None:
        try:
            self._statm: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._statm = None

    def __call__(self) -> int:
        """Return the resident memory in bytes.

        On other systems than Linux, return its maximum so far.
        """
        if self._statm is None:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(os.pread(self._statm, 128, 0).split()[1]) * resource.getpagesize()


def _empty_caches() -> None:
    torch = sys.modules.get("torch")
    for name in ("cuda", "xpu", "mps"):
        with suppress(Exception):  # no torch, no such backend, or no device
            getattr(torch, name).empty_cache()
