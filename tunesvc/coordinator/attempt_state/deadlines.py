"""The next time at which each live attempt has to be checked.

An attempt that is checked too early gets a later deadline. So a report, which moves the attempt's
limits, need not move its deadline. This module knows neither limits nor actions.
"""

from __future__ import annotations

import heapq

from tunesvc.execution.executor import AttemptId


class Deadlines:
    """A queue of deadlines on the coordinator's clock.

    An attempt may have several; those of an attempt that has ended do no harm.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, AttemptId]] = []

    def put(self, at_s: float, attempt: AttemptId) -> None:
        """Schedule a check of the attempt at `at_s`."""
        heapq.heappush(self._heap, (at_s, attempt))

    def pop_due(self, now_s: float) -> list[AttemptId]:
        """Remove and return the attempts with a passed deadline, the earliest first."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[1])
        return due
