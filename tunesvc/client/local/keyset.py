"""Pages of rows whose key is a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tunesvc.errors import TuneError
from tunesvc.queries.rows import RowPage

Row = TypeVar("Row")


def page_of(rows: Sequence[Row], limit: int, key: Callable[[Row], object]) -> RowPage[Row]:
    """Return the first `limit` of rows of which one more was read, if there is one."""
    after = str(key(rows[limit - 1])) if len(rows) > limit else None
    return RowPage(tuple(rows[:limit]), after)


def key_of(after: str) -> int | None:
    """Return the key after which a page starts; None for the first page.

    Raises:
        TuneError: it is none.
    """
    if not after:
        return None
    if not after.isascii() or not after.isdecimal() or len(after) > 18:
        raise TuneError(f"{after!r} is not a position in a list: begin with the first page")
    return int(after)
