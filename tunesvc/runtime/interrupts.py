"""Orderly ends of a run by Ctrl-C or a time limit.

Both set an event, which the coordinator checks between steps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent


class TimeLimit:
    """Ends the run some time after its first step; passes everything on to another observer.

    The time that Ray and the database take to start does not count.
    """

    def __init__(
        self,
        observer: Observer,
        limit_s: float,
        interrupt: threading.Event,
    ) -> None:
        self._observer = observer
        self._limit_s = limit_s
        self._interrupt = interrupt
        self._timer: threading.Timer | None = None

    def on_event(self, event: ProgressEvent) -> None:
        """Pass an event on."""
        self._observer.on_event(event)

    def progress(self, progress: Progress) -> None:
        """Pass a snapshot on; the first one starts the clock."""
        self._observer.progress(progress)
        if self._timer is None:
            self._timer = threading.Timer(self._limit_s, self._interrupt.set)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def interruptible(name: str, interrupt: threading.Event | None) -> Iterator[threading.Event]:
    """Yield the event that ends a run in order.

    Args:
        name: the study's name, for the text of `KeyboardInterrupt`.
        interrupt: the caller's own event. Without it, and in the main thread, the first Ctrl-C
            sets the event and is raised once the run has ended; the second is raised at once.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    event = threading.Event() if interrupt is None else interrupt
    if interrupt is not None or threading.current_thread() is not threading.main_thread():
        yield event
        return
    with _ctrl_c(name, event):
        yield event


@contextmanager
def _ctrl_c(name: str, event: threading.Event) -> Iterator[None]:
    pressed = threading.Event()

    def on_sigint(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            signal.default_int_handler(number, frame)
        pressed.set()
        event.set()

    before = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt(
            f"study {name!r} was interrupted; what is recorded is kept, `resume=True` continues",
        )
