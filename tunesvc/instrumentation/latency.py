"""Durations of operations, for a server that publishes them. Without one, they cost a comparison.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Operation = Literal["ask", "commit"]


def observe_with(observe: Callable[[Operation, float], None] | None) -> None:
    """Pass all durations of this process on, in seconds; None: none any more."""
    global _observe
    _observe = observe


@contextmanager
def timed(operation: Operation) -> Iterator[None]:
    """Measure an operation, unless it raises an error."""
    if _observe is None:
        yield
        return
    began_s = time.perf_counter()
    yield
    _observe(operation, time.perf_counter() - began_s)


_observe: Callable[[Operation, float], None] | None = None
