"""Rows of several pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tunesvc.client.interface import PAGE_MAX
from tunesvc.queries.rows import RowPage

Row = TypeVar("Row")


def rows_of_pages(
    fetch: Callable[[str, int], RowPage[Row]],
    limit: int | None = None,
) -> Iterator[Row]:
    """Yield rows page by page, at most `limit`.

    Args:
        fetch: Returns the page after a key, with at most so many rows.
        limit: Most rows to yield; all if None.
    """
    after: str | None = ""
    while after is not None and limit != 0:
        page = fetch(after, PAGE_MAX if limit is None else min(limit, PAGE_MAX))
        yield from page.rows
        after = page.after
        limit = None if limit is None else limit - len(page.rows)
