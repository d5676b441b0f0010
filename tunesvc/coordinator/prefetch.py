"""How much to prepare before a worker becomes free: proposals here, and attempts that wait in workers.

Both are as few as keep workers from waiting: whatever is prepared knows less than what is asked for later.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from tunesvc.search.optimizer import Optimizer
from tunesvc.search.prefetched_proposals import Proposal

_LOOK_BACK = 64
"""Workers that became free, from which the next ones are predicted."""
_DRAWS = 9
"""Draws, whose median is how long one takes: now and then one has a model to fit first."""
QUICK_S = 0.005
"""Draws as quick as that may happen while the database commits, which they delay by no more than that."""

SHARE_MIN = 0.02
"""Of an attempt's time. A shorter idle time is not worth proposals that know less."""
_SMOOTHING = 0.1
_ENDS = 1024
"""Ended attempts, from which the next ones are predicted."""
LINE_MAX = 6
"""Attempts that wait in each worker, however short they are: each is proposed without the results of the others."""


class ProposalPrefetch:
    """Keeps proposals ready: as many as workers became free within the time that one takes to draw, and one more."""

    def __init__(self, optimizer: Optimizer, now: Callable[[], float]) -> None:
        self._optimizer = optimizer
        self._now = now
        self._freed_s: deque[float] = deque(maxlen=_LOOK_BACK)
        self._draws_s: deque[float] = deque(maxlen=_DRAWS)
        self._is_dry = False

    def freed(self, workers: int) -> None:
        """Note that so many workers became free, and that new results are known."""
        self._freed_s.extend([self._now()] * workers)
        self._is_dry = False

    def wanted(self, slots: int) -> int:
        """Return how many proposals to have ready."""
        recent, draw_s = list(self._freed_s)[-slots:], self._draw_s
        return min(slots, 1 + sum(later - earlier < draw_s for earlier, later in pairwise(recent)))

    @property
    def is_quick(self) -> bool:
        """Tell whether a draw takes hardly any time."""
        return bool(self._draws_s) and self._draw_s <= QUICK_S

    def ask(self) -> Proposal:
        """Return a proposal that is ready, or draw one now."""
        ready, began_s = self._optimizer.prefetched, self._now()
        proposal = self._optimizer.ask()
        if not ready:
            self._draws_s.append(self._now() - began_s)
        return proposal

    def fill(self, slots: int, left: int, moment: str | None) -> bool:
        """Draw one more proposal; return false when no more is needed or possible.

        Args:
            slots: how many trials may run at a time, or wait in a worker.
            left: how many trials may be asked for at all.
            moment: what the study is now, see `Optimizer.draw_ahead`.
        """
        if self._is_dry or moment == "" or self._optimizer.prefetched >= min(left, self.wanted(slots)):
            return False
        began_s = self._now()
        if not self._optimizer.prefetch(moment, lasting=slots):
            self._is_dry = True
            return False
        self._draws_s.append(self._now() - began_s)
        return True

    @property
    def _draw_s(self) -> float:
        return statistics.median(self._draws_s) if self._draws_s else 0.0


class AttemptPrefetch:
    """Watches how long attempts last and how many end together, and tells how many to launch beyond those that run.

    Between the end of an attempt and the start of the next a worker is idle: the end has to arrive and be recorded,
    the next attempt has to be decided on and sent. Where attempts are short, that is a good part of a GPU's time. At
    most as many wait as end within that time.
    """

    def __init__(self, handover_s: float) -> None:
        """`handover_s`: see `Executor.handover_s`."""
        self._handover_s = handover_s
        self._ended = 0
        self._lasted_s = 0.0
        self._ends_s: deque[float] = deque(maxlen=_ENDS)

    def ended(self, lasted_s: float, now_s: float) -> None:
        """Note that an attempt ended, whatever its outcome."""
        self._ended += 1
        self._lasted_s += max(_SMOOTHING, 1 / self._ended) * (lasted_s - self._lasted_s)
        self._ends_s.append(now_s)

    @property
    def line(self) -> int:
        """Return how many may wait in each worker: as many as it finishes within one hand-over."""
        return math.ceil(min(LINE_MAX, max(1.0, self._handover_s / max(self._lasted_s, 1e-9))))

    def wanted(self, slots: int) -> int:
        """Return how many attempts to launch ahead.

        None for one slot, where each result helps the next proposal most, nor before as many have ended as run at
        a time.
        """
        if slots < 2 or self._ended < slots or self._handover_s < SHARE_MIN * self._lasted_s:
            return 0
        most = slots * self.line
        return min(most, self._most_together(2 * most))

    def _most_together(self, ends: int) -> int:
        """Return how many of the last so many ends came within one hand-over, at most."""
        latest = list(self._ends_s)[-ends:]
        most = first = 0
        for last, at_s in enumerate(latest):
            while at_s - latest[first] > self._handover_s:
                first += 1
            most = max(most, last - first + 1)
        return most
