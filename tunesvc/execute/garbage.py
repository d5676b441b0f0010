"""Frees what an attempt has left behind, before the next one begins in the same process.

Models and their optimizers refer to each other in circles, which Python frees only when it looks for them, and GPU
libraries keep what was freed. Imports no torch; where torch is loaded its caches are emptied.
"""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

from tunesvc.clock import Clock

_SHARE = 0.05
"""A collection takes 15 to 100 ms: at most this share of the time goes into it, unless memory has grown."""
_GROWTH_BYTES = 32 * 2**20
_STATM = Path("/proc/self/statm")


class Garbage:
    """Looks for garbage between attempts: often enough for long ones, not so often that short ones wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s = clock.now()
        self._bytes = 0

    def collect(self) -> None:
        """Free what can be freed, if it is worth it by now."""
        if self._clock.now() < self._due_s and resident_bytes() < self._bytes + _GROWTH_BYTES:
            return
        started_s = self._clock.now()
        gc.collect()
        _empty_caches()
        ended_s = self._clock.now()
        self._due_s = ended_s + (ended_s - started_s) / _SHARE
        self._bytes = resident_bytes()


def resident_bytes() -> int:
    """Return how much memory this process holds; where the system does not say so, the most that it ever held."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _empty_caches() -> None:
    torch = sys.modules.get("torch")
    for name in ("cuda", "xpu", "mps"):
        with suppress(Exception):  # no torch, a build without that backend, or none of its devices
            getattr(torch, name).empty_cache()
