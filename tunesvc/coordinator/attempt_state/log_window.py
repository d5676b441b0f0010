"""The stored output of an attempt: its beginning, and its latest end."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tunesvc.execution.executor import OutputLogged

KEPT_CHARS_MAX = 2 * 2**20
"""Stored characters of the beginning, and of the end."""


class LogGap(NamedTuple):
    """The part between beginning and end that is left out."""

    first: int
    """Number of the first event that is left out."""
    last: int
    """Number of the last one."""
    chars: int


class LogWindow:
    """Sizes of one attempt's stored output; holds no text."""

    def __init__(self, kept_chars_max: int = KEPT_CHARS_MAX) -> None:
        self._max = kept_chars_max
        self._beginning_chars = 0
        self._end: deque[_Piece] = deque()
        self._end_chars = 0
        self._gap: LogGap | None = None

    def add(self, seq: int, line: OutputLogged) -> LogGap | None:
        """Add a stored piece; return the gap if it grew, so that the caller deletes its lines."""
        chars = len(line.text)
        if self._beginning_chars < self._max:
            self._beginning_chars += chars
            return None
        self._end.append(_Piece(seq, chars, line.left_out or chars))
        self._end_chars += chars
        return self._leave_out_surplus() if self._end_chars > self._max else None

    def _leave_out_surplus(self) -> LogGap | None:
        grown = self._gap
        while self._end_chars > self._max and len(self._end) > 1:
            piece = self._end.popleft()
            self._end_chars -= piece.chars
            first, chars = (grown.first, grown.chars) if grown else (piece.seq, 0)
            grown = LogGap(first, piece.seq, chars + piece.written_chars)
        self._gap = grown
        return grown


class _Piece(NamedTuple):
    seq: int
    chars: int
    written_chars: int
    """Characters that the attempt wrote; more than `chars` where some were left out on the way."""
