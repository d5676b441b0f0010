"""An asyncio event loop for the objective's thread, as a script has one in its main thread.

`asyncio.get_event_loop` creates a loop by itself only in the main thread. Here it creates one on
demand: most objectives need none, and creating it costs a third of an attempt's other overhead.
Imports no Ray.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_thread = threading.local()


def make_on_demand() -> None:
    """Let `asyncio.get_event_loop` create a loop inside `offer_loop`.

    Does nothing from Python 3.14 on, where no thread gets a loop by itself.
    """
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(_OnDemand())


@contextmanager
def offer_loop() -> Iterator[None]:
    """Offer an event loop to this thread's code. Close it at the end if it was created."""
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
