"""Frees what an attempt has left behind, before the next one begins in the same process.

Models and their optimizers refer to each other in circles, which Python frees only when it looks for them, and GPU
libraries keep what was freed. Imports no torch; where torch is loaded its caches are emptied.
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
"""A collection takes 15 to 100 ms: at most this share of the time goes into it, unless memory has grown."""
_GROWTH_BYTES = 32 * 2**20
_SWOLLEN_BYTES = 256 * 2**20
"""A worker that holds so much more than after its first attempt, and twice as much, keeps memory."""
KEEPS_MEMORY = "[tunesvc: this worker keeps memory of earlier trials"
"""Begins the note in the log of an attempt; `tune doctor` looks for it."""


class Garbage:
    """Looks for garbage between attempts: often enough for long ones, not so often that short ones wait."""

    def __init__(self, clock: Clock, resident: Callable[[], int] | None = None) -> None:
        """`resident`: how much memory this process holds."""
        self._clock = clock
        self._resident = resident or _ResidentMemory()
        self._due_s = clock.now()
        self._bytes = self._at_first = self._noted = 0

    @property
    def is_due(self) -> bool:
        """Tell whether a collection is worth its time by now."""
        return self._clock.now() >= self._due_s or self._resident() >= self._bytes + _GROWTH_BYTES

    def collect(self) -> None:
        """Free what can be freed."""
        started_s = self._clock.now()
        gc.collect()
        _empty_caches()
        ended_s = self._clock.now()
        self._due_s = ended_s + (ended_s - started_s) / _SHARE
        self._bytes = self._resident()
        self._at_first = self._at_first or self._bytes

    def note(self) -> str:
        """Return what to log about memory that no collection frees; each doubling is noted once."""
        limit = max(2 * self._at_first, self._at_first + _SWOLLEN_BYTES, 2 * self._noted)
        if not self._at_first or self._bytes < limit:
            return ""
        self._noted = self._bytes
        return (
            f"{KEEPS_MEMORY}: it holds {self._bytes / 2**30:.1f} GiB, and held {self._at_first / 2**30:.1f} GiB after "
            "its first. `environment: {isolation: process}` gives each trial a process of its own]\n"
        )


class _ResidentMemory:
    """How much memory this process holds, read in microseconds: Linux says it in a file that stays open."""

    def __init__(self) -> None:
        try:
            self._statm: int | None = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._statm = None

    def __call__(self) -> int:
        """Return bytes; where the system does not say so, the most that the process ever held."""
        if self._statm is None:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(os.pread(self._statm, 128, 0).split()[1]) * resource.getpagesize()


def _empty_caches() -> None:
    torch = sys.modules.get("torch")
    for name in ("cuda", "xpu", "mps"):
        with suppress(Exception):  # no torch, a build without that backend, or none of its devices
            getattr(torch, name).empty_cache()
