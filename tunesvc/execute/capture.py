"""Output of a worker's process, caught at the file descriptors: Python's, C libraries' and subprocesses' alike.

Owns descriptors 1 and 2 from its construction on. Imports no Ray.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

Sink = Callable[[str, str], None]
"""Takes (`stdout` or `stderr`, text)."""

BATCH_S = 0.2
"""How long output waits for more, so that a thousand prints are not a thousand events."""
CHUNK_BYTES = 2**16
_PIPE_BYTES = 2**20


class OutputCapture:
    """Hands what the process writes to the sink of the moment; without one it is discarded.

    One pipe per stream for the whole life of the process: children that outlive an attempt, such as the pools of
    joblib, keep writing to a pipe that somebody reads.
    """

    def __init__(self) -> None:
        self._streams = [_Stream("stdout", 1), _Stream("stderr", 2)]
        self._sink: Sink | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="tunesvc-output", daemon=True).start()

    @contextlib.contextmanager
    def into(self, sink: Sink) -> Iterator[None]:
        """Hand over what is written until the end of the block, all of it before the block is left."""
        with self._lock:
            self._discard()
            self._sink = sink
        try:
            yield
        finally:
            for python_stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # the objective may have closed or replaced it
                    python_stream.flush()
            with self._lock:
                self._read_available()
                self._flush(final=True)
                self._sink = None

    def _run(self) -> None:
        while self._ends:
            select.select(self._ends, [], [])
            deadline = time.monotonic() + BATCH_S
            while (left_s := deadline - time.monotonic()) > 0:
                with self._lock:
                    self._read_available()
                select.select(self._ends, [], [], left_s)
            with self._lock:
                self._flush(final=False)

    @property
    def _ends(self) -> list[int]:
        """Of the pipes that somebody may write to: of any other there is an end to be read, for ever."""
        return [stream.read_end for stream in self._streams if not stream.is_over]

    def _read_available(self) -> None:
        """Read what the pipes hold; no more than that, for somebody may be writing without end."""
        for stream in self._streams:
            for _ in range(1 + _PIPE_BYTES // CHUNK_BYTES):
                if not stream.read():
                    break
                if len(stream.text) >= CHUNK_BYTES:
                    self._hand_over(stream, stream.take())

    def _flush(self, *, final: bool) -> None:
        for stream in self._streams:
            self._hand_over(stream, stream.take(final=final))

    def _hand_over(self, stream: _Stream, text: str) -> None:
        if text and self._sink is not None:
            self._sink(stream.name, text)

    def _discard(self) -> None:
        self._read_available()
        for stream in self._streams:
            stream.take(final=True)


class _Stream:
    """One redirected descriptor."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.text = ""
        self.is_over = False
        """Whether nobody can write any more, for the descriptor was closed or leads elsewhere."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.read_end, write_end = os.pipe()
        with contextlib.suppress(AttributeError, OSError):  # not on every system, and only a matter of speed
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self.read_end, False)
        os.dup2(write_end, descriptor)
        os.close(write_end)

    def read(self) -> bool:
        """Read what is there, up to a chunk; whether anything was."""
        try:
            data = os.read(self.read_end, CHUNK_BYTES)
        except BlockingIOError:
            return False
        self.text += self._decoder.decode(data)
        self.is_over = not data
        return bool(data)

    def take(self, *, final: bool = False) -> str:
        """The text so far; NUL, which no database takes, becomes a replacement character."""
        if final:
            self.text += self._decoder.decode(b"", final=True)
        text, self.text = self.text, ""
        return text.replace("\x00", "\ufffd")
