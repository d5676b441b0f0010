"""Output of a worker's process, caught at the file descriptors: Python's, C libraries' and subprocesses' alike.

Owns descriptors 1 and 2 from its construction on: they lead into the files of a spool. Imports no Ray.
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

from tunesvc.execution.attempt.spool import STREAMS, Spool

Sink = Callable[[str, str, int], None]
"""Takes (`stdout` or `stderr`, text, the position in the spool after it)."""

BATCH_S = 0.2
"""How often output is looked for, so that a thousand prints are not a thousand events."""
CHUNK_BYTES = 2**16
BATCH_BYTES_MAX = 2**19
"""Of each stream. What is written faster waits in the spool, where it costs no memory."""
BACKLOG_BYTES_MAX = 2**26
"""When more waits, the older half is left out."""


class OutputCapture:
    """Hands what the process writes to the sink of the moment; without one it is discarded.

    One file per stream for the whole life of the process: children that outlive an attempt, such as the pools of
    joblib, keep writing to it.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        spool.note_exits()
        self._streams = [_Stream(spool, name, descriptor) for descriptor, name in enumerate(STREAMS, 1)]
        faulthandler.enable(2, all_threads=True)  # a signal from outside hits any thread, not the objective's
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
                self._read_available(final=True)
                self._sink = None

    def _run(self) -> None:
        while True:
            time.sleep(BATCH_S)
            with self._lock:
                self._read_available()

    def _read_available(self, *, final: bool = False) -> None:
        """Hand over what the files hold, at most a batch of it until the end.

        What comes meanwhile has to wait, for a child may be writing without end.
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
    """One redirected descriptor."""

    def __init__(self, spool: Spool, name: str, descriptor: int) -> None:
        self.name = name
        self.position = 0
        self._spool = spool
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._reader, writer = spool.open(name)
        os.dup2(writer, descriptor)
        os.close(writer)

    def read(self, *, final: bool) -> Iterator[str]:
        """Yield what has been written since; NUL, which no database takes, becomes a replacement character."""
        end = os.fstat(self._reader).st_size
        if end - self.position > BACKLOG_BYTES_MAX:
            left_out = end - self.position - BACKLOG_BYTES_MAX // 2
            self.position += left_out
            yield f"\n[tunesvc: {left_out:,} bytes of output are left out here]\n"
        if not final:
            end = min(end, self.position + BATCH_BYTES_MAX)
        while self.position < end:
            data = os.pread(self._reader, min(CHUNK_BYTES, end - self.position), self.position)
            self.position += len(data)
            yield self._decoder.decode(data).replace("\x00", "\ufffd")
        self._spool.free(self.name, self.position)
        if final:
            yield self._decoder.decode(b"", final=True)
