"""Event loop of an executor: runs results, timers and requests of other threads in one.

Knows nothing of attempts. Of Ray it knows only that an object reference has a `future()`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

Callback = Callable[[Any, BaseException | None], None]
"""Receives a value or an error."""


class EventLoop:
    """A queue of actions that `run_once` runs in order, each once. Any thread may add actions."""

    def __init__(self) -> None:
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run an action in the next `run_once`."""
        self._actions.put(action)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run an action after a delay."""
        timer = threading.Timer(delay_s, self.call_soon, [action])
        timer.daemon = True
        timer.start()

    def on_result(self, ref: Any, callback: Callback) -> None:
        """Run a callback when a Ray object reference has a value or an error."""

        def deliver(future: Any) -> None:
            error = future.exception()
            value = None if error else future.result()
            self.call_soon(lambda: callback(value, error))

        ref.future().add_done_callback(deliver)

    def run_in_thread(self, work: Callable[[], Any], callback: Callback) -> None:
        """Run blocking work in a thread of its own, then the callback with its result."""

        def run() -> None:
            try:
                value, error = work(), None
            except Exception as raised:  # noqa: BLE001  # the callback decides what the error means
                value, error = None, raised
            self.call_soon(lambda: callback(value, error))

        threading.Thread(target=run, daemon=True).start()

    def run_once(self, timeout_s: float) -> None:
        """Run all pending actions. If there are none, wait up to `timeout_s` for the first."""
        try:
            self._actions.get(block=timeout_s > 0, timeout=timeout_s)()
            while True:
                self._actions.get_nowait()()
        except queue.Empty:
            return
