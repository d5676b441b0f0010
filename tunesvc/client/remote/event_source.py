"""Server-sent events, read from the lines of a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event."""

    name: str
    data: str
    id: str
    """Position after it, to continue there; of the last event that has one."""


def read_events(lines: Iterable[str], last_id: str = "") -> Iterator[ServerEvent]:
    """Yield events; `last_id` is the position at which the response starts."""
    name = "message"
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data), last_id)
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
