"""How many attempts to launch beyond those that may run at a time, so that no worker waits for its next one.

From the end of an attempt to the start of the next a worker has nothing to do: the end has to be heard and recorded,
and the next one to be decided on and to travel. Where attempts are short that is a good part of a GPU's time, and
several of them may end on one worker within it. Each one that waits in a worker is proposed without knowing what runs
there, so there are only as many as end within that time.
"""

from __future__ import annotations

import math
from collections import deque

SHARE_MIN = 0.02
"""Of an attempt's time: what is idle for less is not worth proposals that know less."""
_SMOOTHING = 0.1
_LOOK_BACK = 1024
"""Ends, by which the next ones are foreseen."""
LINE_MAX = 6
"""For each worker, however short they are: what is proposed without knowing of so many others is worth less."""


class Reserve:
    """Watches how long attempts last, and how many end together."""

    def __init__(self, handover_s: float) -> None:
        """`handover_s`: see `Executor.handover_s`."""
        self._handover_s = handover_s
        self._ended = 0
        self._lasted_s = 0.0
        self._ends_s: deque[float] = deque(maxlen=_LOOK_BACK)

    def ended(self, lasted_s: float, now_s: float) -> None:
        """An attempt has come to its end, whatever it was."""
        self._ended += 1
        self._lasted_s += max(_SMOOTHING, 1 / self._ended) * (lasted_s - self._lasted_s)
        self._ends_s.append(now_s)

    @property
    def line(self) -> int:
        """How many may wait in each worker: as many as it brings to an end within one handing over."""
        return math.ceil(min(LINE_MAX, max(1.0, self._handover_s / max(self._lasted_s, 1e-9))))

    def wanted(self, slots: int) -> int:
        """How many attempts to launch ahead.

        None for one slot, where a search knows most with every result; nor before as many have ended as run at a time.
        """
        if slots < 2 or self._ended < slots or self._handover_s < SHARE_MIN * self._lasted_s:
            return 0
        most = slots * self.line
        return min(most, self._most_together(2 * most))

    def _most_together(self, ends: int) -> int:
        """Of the last so many ends, as many as came within one handing over."""
        latest = list(self._ends_s)[-ends:]
        most = first = 0
        for last, at_s in enumerate(latest):
            while at_s - latest[first] > self._handover_s:
                first += 1
            most = max(most, last - first + 1)
        return most
