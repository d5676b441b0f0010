"""The event loop that an objective finds in its thread, as a script finds one in its main thread.

`asyncio.get_event_loop` makes a loop by itself in a main thread only. Most objectives never ask for one, and making
one takes as long as a third of what an attempt costs otherwise, so it is made when it is asked for. Imports no Ray.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()


def make_on_demand() -> None:
    """Let `asyncio.get_event_loop` make a loop wherever one is `offered`.

    From Python 3.14 on no thread gets a loop by itself, a script's main thread neither.
    """
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(_OnDemand())


@contextmanager
def offer_loop() -> Iterator[None]:
    """Offer an event loop to this thread's code; one that was made is closed at the end."""
    _thread.loops = []
    try:
        yield
    finally:
        for loop in _thread.loops:
            loop.close()
        del _thread.loops


class _OnDemand(asyncio.DefaultEventLoopPolicy):
    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        try:
            return super().get_event_loop()
        except RuntimeError:
            if not hasattr(_thread, "loops"):
                raise
        loop = self.new_event_loop()
        self.set_event_loop(loop)
        _thread.loops.append(loop)
        return loop
