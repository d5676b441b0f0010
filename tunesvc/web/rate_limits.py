"""Limits on requests, counted in this process: several servers allow as many times as much."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from threading import Lock, Timer

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from tunesvc.errors import TooManyRequests

FAILURES_PER_MINUTE = 20
"""Wrong tokens and failed attempts to sign in, from one address."""
REQUESTS_PER_MINUTE = 12_000
"""Requests with one token: 200 a second."""
_RECENT = 10_000
_PRUNED_EVERY_S = 60.0


class _CountersInMemory(MemoryStorage):
    """Counters without the library's threads: it starts one for each request."""

    def __init__(self) -> None:
        super().__init__()
        self.timer.cancel()
        self.timer = _NoTimer(0, lambda: None)

    def prune(self) -> None:
        """Forget counters that have expired."""
        now = time.time()
        for key in [key for key, at in self.expirations.copy().items() if at <= now]:
            self.clear(key)


class _NoTimer(Timer):
    """A timer that need not be started."""

    def is_alive(self) -> bool:
        return True


class RateLimits:
    """Counts failures by address, and requests by token. Thread-safe.

    A token that was valid lately is accepted even from an address with too many failures: one
    wrong program behind a shared address must not lock out all others there.
    """

    def __init__(
        self,
        failures: int = FAILURES_PER_MINUTE,
        requests: int = REQUESTS_PER_MINUTE,
    ) -> None:
        self._failures = RateLimitItemPerMinute(failures)
        self._requests = RateLimitItemPerMinute(requests)
        self._counters = _CountersInMemory()
        self._limiter = SlidingWindowCounterRateLimiter(self._counters)
        self._pruned_s = time.monotonic()
        self._lock = Lock()
        self._valid: OrderedDict[bytes, None] = OrderedDict()

    def is_blocked(self, origin: str, secret: str) -> bool:
        """Return True if a secret is not to be looked up."""
        return not self._is_known(secret) and not self._limiter.test(self._failures, origin)

    def check(self, origin: str, secret: str) -> None:
        """Refuse to look up a secret from an origin with too many failures.

        Raises:
            TooManyRequests: it has.
        """
        if self.is_blocked(origin, secret):
            wait_s = self._wait_s(self._failures, origin)
            raise TooManyRequests(f"too many failed attempts: wait {wait_s:.0f} s", wait_s)

    def failed(self, origin: str) -> None:
        """Count a failure."""
        self._hit(self._failures, origin)

    def succeeded(self, secret: str, token_id: int) -> None:
        """Count a request with a valid secret.

        Raises:
            TooManyRequests: there were too many with it.
        """
        with self._lock:
            self._valid[_key(secret)] = None
            self._valid.move_to_end(_key(secret))
            if len(self._valid) > _RECENT:
                self._valid.popitem(last=False)
        if not self._hit(self._requests, str(token_id)):
            wait_s = self._wait_s(self._requests, str(token_id))
            text = f"more than {self._requests.amount} requests a minute: wait {wait_s:.0f} s"
            raise TooManyRequests(text, wait_s)

    def _hit(self, item: RateLimitItem, key: str) -> bool:
        now_s = time.monotonic()
        if now_s - self._pruned_s > _PRUNED_EVERY_S:
            self._pruned_s = now_s
            self._counters.prune()
        return self._limiter.hit(item, key)

    def _is_known(self, secret: str) -> bool:
        with self._lock:
            return _key(secret) in self._valid

    def _wait_s(self, item: RateLimitItem, key: str) -> float:
        reset_at = self._limiter.get_window_stats(item, key).reset_time
        return max(1.0, reset_at - time.time())


def _key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
