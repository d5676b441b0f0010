"""What is kept of what was made: figures and answers, once for all open pages, and made again no more often than it is
worth. Imports nothing of tunesvc but the clock.

A value is made again when its stamp is no longer the newest, but not before it is `PATIENCE` times as old as it took to
make: so however fast results come, a figure that takes a second costs five percent of a processor. Processor time
counts, so that a machine that is busy otherwise does not make figures old. The first time says little of what the next
will cost: everything is read, and libraries are loaded.
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

KEPT_MAX = 256
PATIENCE = 20.0
PATIENCE_FIRST = 1.0


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A value, and how fresh it is."""

    value: Any
    stamp: str
    made_s: float
    wait_s: float
    """How long it is left as it is, whatever comes."""
    fresh_in_s: float = 0.0
    """When it will be made again if asked for; 0 for one that is up to date."""
    age_s: float = 0.0
    """Of one that is not."""


class StaleWhileRevalidateCache:
    """Values by key, the least lately used given up first. Thread-safe; a value is made by one thread at a time.

    Args:
        limit: values that are kept.
        clock: tells how old they are.
        effort: processor time of the thread that asks, in seconds.
    """

    def __init__(
        self,
        limit: int = KEPT_MAX,
        clock: Clock | None = None,
        effort: Callable[[], float] = time.thread_time,
    ) -> None:
        self._limit = limit
        self._clock = clock or SystemClock()
        self._effort = effort
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, CacheEntry] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._coming: dict[Hashable, threading.Event] = {}
        """What `soon` makes now; set where somebody waits for it no longer."""

    def get(
        self,
        key: Hashable,
        stamp: str,
        make: Callable[[Any], Any],
        *,
        is_final: bool = False,
        is_cheap: bool = False,
    ) -> CacheEntry:
        """The value of this stamp, or an older one while it is too early to make it again.

        Args:
            key: what it is.
            stamp: of what it would be made from now.
            make: makes it of the value before, None at first.
            is_final: nothing is to be expected any more, so an older one will not do.
            is_cheap: neither will one here, however often it is asked for.
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
        """As `get`, but an older value is handed out at once, and without one None after `wait_s`.

        `make` runs in a thread of its own; what it may raise is `forgiven` there. Where somebody did not get the newest
        value, `done` is called once it is there; not after one that was forgiven, or they would ask again at once.
        """
        usable = self._usable(key, stamp, is_final)
        if usable is not None:
            return usable
        with self._lock:
            before, coming = self._held.get(key), self._coming.get(key)
            if coming is None:
                self._coming[key] = late = threading.Event()
            else:
                coming.set()
                return before
        came, made = threading.Event(), threading.Event()

        def work() -> None:
            try:
                with suppress(*forgiven):
                    self.get(key, stamp, make, is_final=is_final)
                    made.set()
            finally:
                with self._lock:
                    del self._coming[key]
                came.set()
            if made.is_set() and late.is_set():
                done()

        threading.Thread(target=work, name="tunesvc-making", daemon=True).start()
        if not came.wait(wait_s if before is None else 0.0):
            late.set()
        with self._lock:
            return self._held.get(key)

    def _usable(self, key: Hashable, stamp: str, newest: bool) -> CacheEntry | None:
        with self._lock:
            held = self._held.get(key)
            if held is None:
                return None
            self._held.move_to_end(key)
        if held.stamp == stamp:
            return held
        now = self._clock.now()
        left = held.made_s + held.wait_s - now
        if newest or left <= 0:
            return None
        return replace(held, fresh_in_s=left, age_s=now - held.made_s)

    def _made(self, key: Hashable, stamp: str, make: Callable[[Any], Any]) -> CacheEntry:
        with self._lock:
            before = self._held.get(key)
        began = self._effort()
        value = make(None if before is None else before.value)
        spent, now = self._effort() - began, self._clock.now()
        patience = PATIENCE_FIRST if before is None else PATIENCE
        held = CacheEntry(value, stamp, now, patience * spent)
        with self._lock:
            self._held[key] = held
            self._held.move_to_end(key)
            while len(self._held) > self._limit:
                gone, _ = self._held.popitem(last=False)
                self._making.pop(gone, None)
        return held
