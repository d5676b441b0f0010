"""How many proposals to have ready before workers become free.

As many as workers became free closer together than a proposal takes to draw, and one more: each of them would have
waited. More than that would only be older when they are taken, and know less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise

from tunesvc.search.optimizer import Optimizer

_LOOK_BACK = 64
"""Workers that became free, by which the next ones are foreseen."""
_SMOOTHING = 0.3


class Stock:
    """Fills the optimizer's stock of proposals while nothing else is to be done."""

    def __init__(self, optimizer: Optimizer, now: Callable[[], float]) -> None:
        self._optimizer = optimizer
        self._now = now
        self._freed_s: deque[float] = deque(maxlen=_LOOK_BACK)
        self._draw_s = 0.0
        self._is_dry = False

    def freed(self, workers: int) -> None:
        """So many workers have become free, and something is known that was not before."""
        self._freed_s.extend([self._now()] * workers)
        self._is_dry = False

    def wanted(self, slots: int) -> int:
        """How many proposals to have ready."""
        recent = list(self._freed_s)[-slots:]
        return min(slots, 1 + sum(later - earlier < self._draw_s for earlier, later in pairwise(recent)))

    def fill(self, slots: int, left: int, moment: str) -> bool:
        """Draw one more proposal; False when no more is wanted, or can be.

        Args:
            slots: how many trials may run at a time.
            left: how many trials may be asked for at all.
            moment: what the study is now, see `Optimizer.draw_ahead`.
        """
        if self._is_dry or not moment or self._optimizer.ahead >= min(left, self.wanted(slots)):
            return False
        began_s = self._now()
        if not self._optimizer.draw_ahead(moment, lasting=slots):
            self._is_dry = True
            return False
        self._draw_s += _SMOOTHING * (self._now() - began_s - self._draw_s)
        return True
