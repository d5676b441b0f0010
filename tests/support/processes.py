"""Which processes there are. Linux only, as the tests that look for what is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A living process."""

    pid: int
    parent: int
    session: int
    command: str


def processes() -> Iterator[Process]:
    """All that live and have not become zombies."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
        if state != "Z":
            yield Process(int(folder.name), int(parent), int(session), command)
