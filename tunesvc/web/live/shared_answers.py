"""Answers that many clients ask for at once: each is made once for all that wait for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

KEPT_MAX = 256


@dataclass(slots=True)
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one that makes it."""
    began_s: float = float("-inf")
    value: Any = None


class SharedAnswers:
    """The latest answers by key. Thread-safe.

    A client gets an answer whose making began after it asked, so it is never older than what the
    client knew by then. While one is made, all that ask wait; the first of them makes the next one,
    and that one serves all others.
    """

    def __init__(self, limit: int = KEPT_MAX) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()

    def get(self, key: Hashable, asked_s: float, make: Callable[[], T]) -> T:
        """Return an answer that was begun after `asked_s`, a time of `time.monotonic`."""
        with self._lock:
            answer = self._answers.setdefault(key, _Answer())
            self._answers.move_to_end(key)
            if len(self._answers) > self._limit:
                self._answers.popitem(last=False)
        with answer.lock:
            if answer.began_s < asked_s:
                began_s = time.monotonic()
                answer.value = make()
                answer.began_s = began_s
            value: T = answer.value
            return value
