"""Answers that many clients ask for at once: each is made once for all that wait for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")
KEPT_MAX = 256


@dataclass(slots=True)
class _Answer:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one that makes it."""
    began_s: float = float("-inf")
    value: Any = None


class SharedAnswers:
    """The latest answers by key, for requests of one event loop.

    A client gets an answer whose making began after it asked, so it is never older than what the
    client knew by then. While one is made, all that ask wait, without a thread; the first of them
    makes the next one, and that one serves all others.
    """

    def __init__(self, limit: int = KEPT_MAX) -> None:
        self._limit = limit
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return an answer that is begun from now on; `make` runs in a thread."""
        asked_s = time.monotonic()
        answer = self._answers.setdefault(key, _Answer())
        self._answers.move_to_end(key)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)
        async with answer.lock:
            if answer.began_s < asked_s:
                began_s = time.monotonic()
                answer.value = await run_in_threadpool(make)
                answer.began_s = began_s
            value: T = answer.value
            return value
