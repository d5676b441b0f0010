"""Time as a thing that is handed in, so that tests can let hours pass in milliseconds.

Durations are seconds on a clock that never runs backwards; moments in the database come from the database.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never decreases."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()
