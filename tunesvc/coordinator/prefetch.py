"""Amounts to prefetch before a worker becomes free: proposals here, and attempts in the workers.

Both are the smallest that keep workers busy: a prefetched proposal knows fewer results than one
that is drawn later.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from tunesvc.search.optimizer import Optimizer
from tunesvc.search.prefetched_proposals import Proposal

_FREED_MAX = 64
"""Number of freed workers from which the rate of the next ones is estimated."""
_DRAWS_MAX = 9
"""Number of draws for the median duration of one; some of them fit a model first."""
QUICK_S = 0.005
"""Longest median of draws that may run while the database commits; they delay it by that much."""

SHARE_MIN = 0.02
"""Share of an attempt's duration below which an idle time is not worth prefetching for."""
_SMOOTHING = 0.1
_ENDS_MAX = 1024
"""Number of ended attempts from which the next ones are predicted."""
BACKLOG_MAX = 6
"""Most attempts that wait in a worker: each is proposed without the results of the others."""


class ProposalPrefetch:
    """Prefetches proposals: one more than workers become free while one is drawn."""

    def __init__(self, optimizer: Optimizer, now: Callable[[], float]) -> None:
        self._optimizer = optimizer
        self._now = now
        self._freed_s: deque[float] = deque(maxlen=_FREED_MAX)
        self._draws_s: deque[float] = deque(maxlen=_DRAWS_MAX)
        self._is_dry = False

    def freed(self, workers: int) -> None:
        """Record that workers became free, with new results."""
        self._freed_s.extend([self._now()] * workers)
        self._is_dry = False

    def target(self, slots: int) -> int:
        """Return the number of proposals to have ready."""
        recent, draw_s = list(self._freed_s)[-slots:], self._draw_s
        together = sum(later - earlier < draw_s for earlier, later in pairwise(recent))
        return min(slots, 1 + together)

    @property
    def is_quick(self) -> bool:
        """True if a draw is known to take hardly any time."""
        return bool(self._draws_s) and self._draw_s <= QUICK_S

    def ask(self) -> Proposal:
        """Return a prefetched proposal, or draw one now."""
        ready, began_s = self._optimizer.prefetched, self._now()
        proposal = self._optimizer.ask()
        if not ready:
            self._draws_s.append(self._now() - began_s)
        return proposal

    def fill(self, slots: int, left: int, step_time: str | None) -> bool:
        """Draw one more proposal; return False when no more is needed or possible.

        Args:
            slots: most trials that may run, or wait in a worker, at a time.
            left: number of trials that may still be asked for.
            step_time: time of the study's last committed step, see `Optimizer.prefetch`.
        """
        if self._is_dry or step_time == "":
            return False
        if self._optimizer.prefetched >= min(left, self.target(slots)):
            return False
        began_s = self._now()
        if not self._optimizer.prefetch(step_time, lasting=slots):
            self._is_dry = True
            return False
        self._draws_s.append(self._now() - began_s)
        return True

    @property
    def _draw_s(self) -> float:
        return statistics.median(self._draws_s) if self._draws_s else 0.0


class Prefetcher:
    """Decides how many attempts to launch beyond those that run.

    Between the end of an attempt and the start of the next a worker is idle: the end has to arrive
    and be recorded, the next attempt has to be decided on and sent. For short attempts, that is a
    large share of a GPU's time. The number is at most that of attempts that end within this time.
    """

    def __init__(self, handover_s: float) -> None:
        """`handover_s`: see `Executor.handover_s`."""
        self._handover_s = handover_s
        self._ended = 0
        self._lasted_s = 0.0
        self._ends_s: deque[float] = deque(maxlen=_ENDS_MAX)

    def ended(self, lasted_s: float, now_s: float) -> None:
        """Record that an attempt ended, with any outcome."""
        self._ended += 1
        self._lasted_s += max(_SMOOTHING, 1 / self._ended) * (lasted_s - self._lasted_s)
        self._ends_s.append(now_s)

    @property
    def worker_backlog(self) -> int:
        """Most attempts to queue in each worker: as many as it finishes within one hand-over."""
        per_handover = self._handover_s / max(self._lasted_s, 1e-9)
        return math.ceil(min(BACKLOG_MAX, max(1.0, per_handover)))

    def target(self, slots: int) -> int:
        """Return the number of attempts to prefetch.

        It is 0 for one slot, where each result helps the next proposal most, and until as many
        attempts have ended as run at a time.
        """
        if slots < 2 or self._ended < slots or self._handover_s < SHARE_MIN * self._lasted_s:
            return 0
        most = slots * self.worker_backlog
        return min(most, self._most_together(2 * most))

    def _most_together(self, ends: int) -> int:
        """Return the largest number of the last `ends` ends that came within one hand-over."""
        latest = list(self._ends_s)[-ends:]
        most = first = 0
        for last, at_s in enumerate(latest):
            while at_s - latest[first] > self._handover_s:
                first += 1
            most = max(most, last - first + 1)
        return most
