"""Log of a process's operations and their outcomes, for a checker.

With `TUNE_HISTORY=FOLDER` every process appends to a file of its own there, one JSON object a line.
An operation that may fail is written when it begins and when it ends: if its process died in
between, its outcome is unknown. Without the variable nothing is written.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO


def write_to(folder: Path | None) -> None:
    """Write to a folder from now on, as `TUNE_HISTORY` does from the start; None: write nothing."""
    global _folder
    _folder = folder
    _file.cache_clear()


def record(operation: str, **fields: Any) -> None:
    """Write one line, with the time of the machine's monotonic clock, shared by its processes."""
    if _folder is not None:
        line = {"at": time.monotonic(), "pid": os.getpid(), "op": operation, **fields}
        file = _file(_folder, os.getpid())
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
        file.flush()


@contextmanager
def recorded(operation: str, describe: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Write an operation's beginning with its fields, then `ok`, or `failed` with the error."""
    if _folder is None:
        yield
        return
    fields = describe()
    record(operation, phase="begin", **fields)
    try:
        yield
    except BaseException as error:
        record(operation, phase="failed", error=type(error).__name__, **fields)
        raise
    record(operation, phase="ok", **fields)


@lru_cache(maxsize=1)
def _file(folder: Path, pid: int) -> TextIO:
    """Return this process's file; a forked process gets its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{socket.gethostname()}-{pid}.jsonl").open("a", encoding="utf-8")


_folder = Path(os.environ["TUNE_HISTORY"]) if os.environ.get("TUNE_HISTORY") else None
