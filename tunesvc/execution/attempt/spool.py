"""A worker's output in files of its machine, and how the worker ended: what is left when its process dies.

Whatever a process has written to a file stays, however the process ends; a pipe into the process itself dies with it.
Imports no Ray.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

STREAMS = ("stdout", "stderr")
REMAINS_BYTES_MAX = 2**18
"""Of each stream, from its end."""
_PUNCH_HOLE_AND_KEEP_SIZE = 0x02 | 0x01
_BLOCK_BYTES = 2**22
_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_SIGNALS = {  # as faulthandler calls them
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead process has left."""

    output: Mapping[str, str] = field(default_factory=dict)
    """By stream; only what was not heard before."""
    end: str = ""
    """How it ended, as in `ended with exit code 3`; empty when that left no trace."""


class Spool:
    """The files of this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._freed = dict.fromkeys(STREAMS, 0)

    def open(self, stream: str) -> tuple[int, int]:
        """Return a descriptor to read a stream from, and one to write it to."""
        file = self.folder / stream
        writer = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        return os.open(file, os.O_RDONLY), writer

    def free(self, stream: str, end: int) -> None:
        """Give the disk back what was read up to `end`, except what `read_remains` may look for.

        Later positions stay what they are. Only Linux can.
        """
        start, end = self._freed[stream], end - REMAINS_BYTES_MAX
        if end - start < _BLOCK_BYTES:
            return
        self._freed[stream] = end
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            with (self.folder / stream).open("r+b") as file:
                offset, length = ctypes.c_int64(start), ctypes.c_int64(end - start)
                libc.fallocate(file.fileno(), _PUNCH_HOLE_AND_KEEP_SIZE, offset, length)

    def note_exits(self) -> None:
        """Have `os._exit` of this process, not of its children, leave its exit code."""
        leave, owner, file = os._exit, os.getpid(), self.folder / "exit"

        def note_and_leave(status: int) -> NoReturn:
            if os.getpid() == owner:
                with suppress(OSError):
                    file.write_text(str(status))
            leave(status)

        os._exit = note_and_leave


def read_remains(folder: str, heard: Mapping[str, int]) -> Remains:
    """Read what a dead process has left in its spool, beyond the position up to which each stream was heard."""
    place = Path(folder)
    output = {stream: _tail(place / stream, heard.get(stream, 0)) for stream in STREAMS}
    return Remains(output, _end(place, output["stderr"]))


def _tail(file: Path, start: int) -> str:
    with suppress(OSError), file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        left_out = max(0, size - start - REMAINS_BYTES_MAX)
        stream.seek(start + left_out)
        text = stream.read(REMAINS_BYTES_MAX).decode("utf-8", "replace").replace("\x00", "\ufffd")
        return f"\n[tunesvc: {left_out:,} bytes of output are left out here]\n{text}" if left_out else text
    return ""


def _end(folder: Path, stderr: str) -> str:
    with suppress(OSError):
        return f"ended with exit code {(folder / 'exit').read_text()}"
    if not (found := _FATAL.findall(stderr)):
        return ""
    name = _SIGNALS.get(found[-1])
    how = f"was ended by {name.name} ({found[-1].lower()})" if name else f"ended with a fatal error ({found[-1]})"
    return f"{how}; its stack is in the log"
