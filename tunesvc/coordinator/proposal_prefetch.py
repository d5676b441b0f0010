"""How many proposals to have ready before workers become free.

As many as workers became free closer together than a proposal takes to draw, and one more: each of them would have
waited. More than that would only be older when they are taken, and know less.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from tunesvc.search.optimizer import Optimizer
from tunesvc.search.prefetched_proposals import Proposal

_LOOK_BACK = 64
"""Workers that became free, by which the next ones are foreseen."""
_DRAWS = 9
"""Draws, by whose median it is known how long one takes: one now and then has something to learn first."""
QUICK_S = 0.005
"""Who is done with a draw so soon may draw while the database works: what was committed waits no longer than that."""


class Stock:
    """Fills the optimizer's stock of proposals while nothing else is to be done."""

    def __init__(self, optimizer: Optimizer, now: Callable[[], float]) -> None:
        self._optimizer = optimizer
        self._now = now
        self._freed_s: deque[float] = deque(maxlen=_LOOK_BACK)
        self._draws_s: deque[float] = deque(maxlen=_DRAWS)
        self._is_dry = False

    def freed(self, workers: int) -> None:
        """So many workers have become free, and something is known that was not before."""
        self._freed_s.extend([self._now()] * workers)
        self._is_dry = False

    def wanted(self, slots: int) -> int:
        """How many proposals to have ready."""
        recent, draw_s = list(self._freed_s)[-slots:], self._draw_s
        return min(slots, 1 + sum(later - earlier < draw_s for earlier, later in pairwise(recent)))

    @property
    def is_quick(self) -> bool:
        """Whether a draw takes no time to speak of."""
        return bool(self._draws_s) and self._draw_s <= QUICK_S

    def ask(self) -> Proposal:
        """A proposal that is ready, or one that is drawn now."""
        ready, began_s = self._optimizer.ahead, self._now()
        proposal = self._optimizer.ask()
        if not ready:
            self._draws_s.append(self._now() - began_s)
        return proposal

    def fill(self, slots: int, left: int, moment: str | None) -> bool:
        """Draw one more proposal; False when no more is wanted, or can be.

        Args:
            slots: how many trials may run at a time, or wait in a worker's line.
            left: how many trials may be asked for at all.
            moment: what the study is now, see `Optimizer.draw_ahead`.
        """
        if self._is_dry or moment == "" or self._optimizer.ahead >= min(left, self.wanted(slots)):
            return False
        began_s = self._now()
        if not self._optimizer.draw_ahead(moment, lasting=slots):
            self._is_dry = True
            return False
        self._draws_s.append(self._now() - began_s)
        return True

    @property
    def _draw_s(self) -> float:
        return statistics.median(self._draws_s) if self._draws_s else 0.0
