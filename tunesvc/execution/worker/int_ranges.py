"""A set of integers, stored as ranges: small for consecutive numbers, such as steps."""

from __future__ import annotations

from array import array
from bisect import bisect_right


class IntRangeSet:
    """Sorted ranges that do not touch. Each range takes 16 bytes, whatever its length."""

    def __init__(self) -> None:
        self._firsts = array("q")
        self._lasts = array("q")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last number of each range."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def add(self, step: int) -> bool:
        """Add a number. Return True if it was missing."""
        above = bisect_right(self._firsts, step)
        below = above - 1
        if above and step <= self._lasts[below]:
            return False
        follows = above > 0 and self._lasts[below] == step - 1
        precedes = above < len(self._firsts) and self._firsts[above] == step + 1
        if follows and precedes:
            del self._firsts[above], self._lasts[below]
        elif follows:
            self._lasts[below] = step
        elif precedes:
            self._firsts[above] = step
        else:
            self._firsts.insert(above, step)
            self._lasts.insert(above, step)
        return True
