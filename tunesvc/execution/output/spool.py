"""A worker's output in files on its node, and its exit code: both survive the death of its process.

Output in a file survives however the process ends, unlike output in a pipe to the process itself.
Imports no Ray.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tunesvc.execution.supervision.supervised_process import FATAL_SIGNALS
from tunesvc.util.characters import storable

STREAMS = ("stdout", "stderr")
REMAINS_BYTES_MAX = 2**18
"""Limit per stream, counted from its end."""
_PUNCH_HOLE_AND_KEEP_SIZE = 0x02 | 0x01
_BLOCK_BYTES = 2**22
_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Remains:
    """Unread output of a dead process, and how it ended."""

    output: Mapping[str, str] = field(default_factory=dict)
    """Unread output by stream."""
    end: str = ""
    """Its end in words, as in `ended with exit code 3`. Empty if unknown."""


class Spool:
    """The output files of this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._freed = dict.fromkeys(STREAMS, 0)

    def open(self, stream: str) -> tuple[int, int]:
        """Return descriptors to read and to write a stream."""
        file = self.folder / stream
        writer = os.open(
            file,
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC,
            0o600,
        )
        return os.open(file, os.O_RDONLY), writer

    def ends(self) -> dict[str, int]:
        """Return the position up to which each stream is written."""
        files = {stream: self.folder / stream for stream in STREAMS}
        return {stream: file.stat().st_size for stream, file in files.items() if file.exists()}

    def free(self, stream: str, end: int) -> None:
        """Free the disk space of output read up to `end`, except what `read_remains` may need.

        Positions do not change. Linux only.
        """
        start, end = self._freed[stream], end - REMAINS_BYTES_MAX
        if end - start < _BLOCK_BYTES:
            return
        self._freed[stream] = end
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            with (self.folder / stream).open("r+b") as file:
                offset, length = ctypes.c_int64(start), ctypes.c_int64(end - start)
                libc.fallocate(
                    file.fileno(),
                    _PUNCH_HOLE_AND_KEEP_SIZE,
                    offset,
                    length,
                )

    def note_exits(self) -> None:
        """Make `os._exit` write the exit code to a file, but not in child processes."""
        leave, owner, file = os._exit, os.getpid(), self.folder / "exit"

        def note_and_leave(status: int) -> NoReturn:
            if os.getpid() == owner:
                with suppress(OSError):
                    file.write_text(str(status))
            leave(status)

        os._exit = note_and_leave


def read_remains(folder: str, positions: Mapping[str, int]) -> Remains:
    """Read a dead process's spool, each stream from the position up to which it was received."""
    spool = Path(folder)
    output = {stream: _tail(spool / stream, positions.get(stream, 0)) for stream in STREAMS}
    return Remains(output, _describe_end(spool, output["stderr"]))


def _tail(file: Path, start: int) -> str:
    with suppress(OSError), file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        left_out = max(0, size - start - REMAINS_BYTES_MAX)
        stream.seek(start + left_out)
        text = storable(stream.read(REMAINS_BYTES_MAX).decode("utf-8", "replace"))
        if not left_out:
            return text
        return f"\n[tunesvc: {left_out:,} bytes of output are left out here]\n{text}"
    return ""


def _describe_end(folder: Path, stderr: str) -> str:
    with suppress(OSError):
        return f"ended with exit code {(folder / 'exit').read_text()}"
    if not (found := _FATAL.findall(stderr)):
        return ""
    number = FATAL_SIGNALS.get(found[-1])
    if number is None:
        return f"ended with a fatal error ({found[-1]}); its stack is in the log"
    return f"was ended by {number.name} ({found[-1].lower()}); its stack is in the log"
