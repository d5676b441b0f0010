"""Captures a worker's output at the file descriptors, including that of subprocesses.

Owns descriptors 1 and 2 once constructed, and redirects them into the files of a spool. Imports no
Ray.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tunesvc.execution.output.spool import STREAMS, Spool
from tunesvc.util.characters import storable

Sink = Callable[[str, str, int], None]
"""Receives (`stdout` or `stderr`, text, position in the spool after it)."""

BATCH_S = 0.2
"""Interval between reads, so that a thousand prints do not become a thousand events."""
CHUNK_BYTES = 2**16
BATCH_BYTES_MAX = 2**19
"""Limit per stream and read. The rest waits in the spool, where it takes no memory."""
BACKLOG_BYTES_MAX = 2**26
"""If more is waiting, the older half is dropped."""


_captured: list[OutputCapture] = []
"""That of this process, if there is one."""


def is_captured() -> bool:
    """Return True if this process's output is captured."""
    return bool(_captured)


class OutputCapture:
    """Passes the process's output to the current sink, or discards it if there is none.

    Each stream has one file for the life of the process, because children that outlive an attempt,
    such as the pools of joblib, keep writing to it.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        spool.note_exits()
        descriptors = enumerate(STREAMS, 1)
        self._streams = [_Stream(spool, name, descriptor) for descriptor, name in descriptors]
        faulthandler.enable(2, all_threads=True)  # a signal from outside may hit any thread
        self._sink: Sink | None = None
        self._lock = threading.Lock()
        _captured.append(self)
        threading.Thread(target=self._run, name="tunesvc-output", daemon=True).start()

    @contextlib.contextmanager
    def into(self, sink: Sink) -> Iterator[None]:
        """Pass all output written inside the block to `sink`."""
        self.begin(sink)
        try:
            yield
        finally:
            for python_stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(
                    Exception,
                ):  # the objective may have closed or replaced it
                    python_stream.flush()
            with self._lock:
                self._read_available(final=True)
                self._sink = None

    def begin(self, sink: Sink) -> None:
        """Pass all output from now on to `sink`."""
        with self._lock:
            self._discard()
            self._sink = sink

    def _run(self) -> None:
        while True:
            time.sleep(BATCH_S)
            with self._lock:
                self._read_available()

    def _read_available(self, *, final: bool = False) -> None:
        """Pass on the content of the files, at most one batch of it unless `final`.

        Output written meanwhile waits for the next call: a child may never stop writing.
        """
        for stream in self._streams:
            for text in stream.read(final=final):
                if text and self._sink is not None:
                    self._sink(stream.name, text, stream.position)

    def _discard(self) -> None:
        for stream in self._streams:
            for _ in stream.read(final=True):
                pass


class _Stream:
    """A redirected descriptor."""

    def __init__(self, spool: Spool, name: str, descriptor: int) -> None:
        self.name = name
        self.position = 0
        self._spool = spool
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._reader, writer = spool.open(name)
        os.dup2(writer, descriptor)
        os.close(writer)

    def read(self, *, final: bool) -> Iterator[str]:
        """Yield new output. NUL, which the database refuses, becomes a replacement character."""
        end = os.fstat(self._reader).st_size
        if end - self.position > BACKLOG_BYTES_MAX:
            left_out = end - self.position - BACKLOG_BYTES_MAX // 2
            self.position += left_out
            yield f"\n[tunesvc: {left_out:,} bytes of output are left out here]\n"
        if not final:
            end = min(end, self.position + BATCH_BYTES_MAX)
        while self.position < end:
            data = os.pread(
                self._reader,
                min(CHUNK_BYTES, end - self.position),
                self.position,
            )
            self.position += len(data)
            yield storable(self._decoder.decode(data))
        self._spool.free(self.name, self.position)
        if final:
            yield self._decoder.decode(b"", final=True)
