"""Suggestions for misspelled names. Imports nothing of tunesvc."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar, whatever its case; None if none is similar."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def suggest(
    name: object,
    known: Iterable[str],
    *,
    quote: str = "`",
    otherwise: str = "",
) -> str:
    """Return `, did you mean ...?`, or `otherwise` if no known name is similar."""
    near = nearest(name, known) if isinstance(name, str) else None
    return otherwise if near is None else f", did you mean {quote}{near}{quote}?"
