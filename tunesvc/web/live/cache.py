"""Cache of figures and recommendations for all open pages. Imports nothing of tunesvc but the
clock.

A value is refreshed if its stamp is outdated, but not before it is `PATIENCE` times as old as it
took to make: so a figure that takes a second uses at most five percent of a processor. Processor
time counts, so that other load on the machine does not keep values stale. The first value's cost
is no estimate for the next one's, because it includes reading all trials and importing libraries;
it is multiplied by `PATIENCE_FIRST` only.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tunesvc.util.clock import Clock, SystemClock

ENTRIES_MAX = 256
PATIENCE = 20.0
PATIENCE_FIRST = 1.0


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cached value with its age."""

    value: Any
    stamp: str
    made_s: float
    wait_s: float
    """Time after `made_s` during which it is not refreshed."""
    fresh_in_s: float = 0.0
    """Time until a request refreshes it; 0 if it is up to date."""
    age_s: float = 0.0
    """Age of a stale value."""


class StaleWhileRevalidateCache:
    """Values by key; the least recently used one is dropped first.

    Thread-safe; only one thread at a time makes a value.

    Args:
        limit: Most values in the cache.
        clock: Clock for their age.
        effort: Processor time of the calling thread, in seconds.
    """

    def __init__(
        self,
        limit: int = ENTRIES_MAX,
        clock: Clock | None = None,
        effort: Callable[[], float] = time.thread_time,
    ) -> None:
        self._limit = limit
        self._clock = clock or SystemClock()
        self._effort = effort
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, CacheEntry] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._refreshing: dict[Hashable, threading.Event] = {}
        """Keys that `get_or_refresh` makes now; the event is set if a caller got no newest value.
        """

    def get(
        self,
        key: Hashable,
        stamp: str,
        make: Callable[[Any], Any],
        *,
        is_final: bool = False,
        is_cheap: bool = False,
    ) -> CacheEntry:
        """Return the value of this stamp, or an older one while it is too early to refresh it.

        Args:
            key: Key of the value.
            stamp: Stamp of the current data.
            make: Makes the value from the former one; from None at first.
            is_final: Require the newest value, because no further changes will refresh it.
            is_cheap: Require the newest value, because it costs little.
        """
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        usable = self._usable(key, stamp, is_final or is_cheap)
        if usable is not None:
            return usable
        with making:
            usable = self._usable(key, stamp, is_final or is_cheap)
            return usable or self._made(key, stamp, make)

    def get_or_refresh(
        self,
        key: Hashable,
        stamp: str,
        make: Callable[[Any], Any],
        *,
        wait_s: float,
        done: Callable[[], None],
        is_final: bool = False,
        forgiven: tuple[type[Exception], ...] = (),
    ) -> CacheEntry | None:
        """Return as `get` does, but a stale value at once; None if there is none after `wait_s`.

        `make` runs in a thread of its own, which ignores `forgiven` exceptions. If a caller did not
        get the newest value, `done` is called once it exists. It is not called after a forgiven
        exception, as callers would then try again at once.
        """
        usable = self._usable(key, stamp, is_final)
        if usable is not None:
            return usable
        with self._lock:
            before = self._entries.get(key)
            refreshing = self._refreshing.get(key)
            if refreshing is not None:
                refreshing.set()
                return before
            self._refreshing[key] = late = threading.Event()
        ended = threading.Event()
        made = threading.Event()

        def work() -> None:
            try:
                with suppress(*forgiven):
                    self.get(key, stamp, make, is_final=is_final)
                    made.set()
            finally:
                with self._lock:
                    del self._refreshing[key]
                ended.set()
            if made.is_set() and late.is_set():
                done()

        threading.Thread(target=work, name="tunesvc-making", daemon=True).start()
        if not ended.wait(wait_s if before is None else 0.0):
            late.set()
        with self._lock:
            return self._entries.get(key)

    def _usable(self, key: Hashable, stamp: str, newest: bool) -> CacheEntry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        if entry.stamp == stamp:
            return entry
        now = self._clock.now()
        left_s = entry.made_s + entry.wait_s - now
        if newest or left_s <= 0:
            return None
        return replace(entry, fresh_in_s=left_s, age_s=now - entry.made_s)

    def _made(
        self,
        key: Hashable,
        stamp: str,
        make: Callable[[Any], Any],
    ) -> CacheEntry:
        with self._lock:
            before = self._entries.get(key)
        began = self._effort()
        value = make(None if before is None else before.value)
        effort_s = self._effort() - began
        now = self._clock.now()
        patience = PATIENCE_FIRST if before is None else PATIENCE
        entry = CacheEntry(value, stamp, now, patience * effort_s)
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._limit:
                dropped, _ = self._entries.popitem(last=False)
                self._making.pop(dropped, None)
        return entry
