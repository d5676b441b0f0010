"""Position in the output of a trial: attempt and number of a piece, as text."""

from __future__ import annotations

from tunesvc.errors import TuneError
from tunesvc.queries.rows import LogRow


def log_position(row: LogRow) -> str:
    """Return the position after a piece of output."""
    return f"{row.attempt}-{row.seq}"


def parse_log_position(text: str) -> tuple[int, int]:
    """Return attempt and number of a position; those before the first piece for an empty text.

    Raises:
        TuneError: it is no position.
    """
    if not text:
        return (0, 0)
    attempt, _, seq = text.partition("-")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (attempt, seq)):
        raise TuneError(f"{text!r} is not a position in an output: begin with the first page")
    return int(attempt), int(seq)
