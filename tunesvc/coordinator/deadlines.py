"""When which live attempt has to be looked at next, so that nobody is looked at before.

Whoever is looked at too early is put off to a later moment; so an attempt that moves its own deadline, as every
report does, need not say so. Knows neither limits nor what is done at a deadline.
"""

from __future__ import annotations

import heapq

from tunesvc.execution.executor import AttemptId


class Deadlines:
    """Moments on the coordinator's clock. An attempt may have several, and those of one that is over do no harm."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, AttemptId]] = []

    def put(self, at_s: float, attempt: AttemptId) -> None:
        """Look at the attempt from this moment on."""
        heapq.heappush(self._heap, (at_s, attempt))

    def take_due(self, now_s: float) -> list[AttemptId]:
        """Those whose moment has come, the earliest first; each is told once."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[1])
        return due
