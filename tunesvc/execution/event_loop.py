"""Where answers, timers and requests of other threads wait for the one thread that listens.

Knows no attempts; of Ray it knows what a reference to an answer looks like.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

Callback = Callable[[Any, BaseException | None], None]
"""Gets a value or an error."""


class EventLoop:
    """Actions, each carried out once and in order by whoever calls `take_in`. Any thread may add to it."""

    def __init__(self) -> None:
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have something done soon."""
        self._actions.put(action)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Have something done after a while."""
        timer = threading.Timer(delay_s, self.call_soon, [action])
        timer.daemon = True
        timer.start()

    def on_result(self, ref: Any, callback: Callback) -> None:
        """Have `then` called when an actor has answered, or is known not to."""

        def deliver(future: Any) -> None:
            error = future.exception()
            value = None if error else future.result()
            self.call_soon(lambda: callback(value, error))

        ref.future().add_done_callback(deliver)

    def run_in_thread(self, work: Callable[[], Any], callback: Callback) -> None:
        """Do what may take long in a thread of its own, and have `then` called with what came of it."""

        def run() -> None:
            try:
                value, error = work(), None
            except Exception as raised:  # noqa: BLE001  # whoever asked for the work decides what it means
                value, error = None, raised
            self.call_soon(lambda: callback(value, error))

        threading.Thread(target=run, daemon=True).start()

    def run_once(self, timeout_s: float) -> None:
        """Do what has arrived; waits for the first when nothing has."""
        try:
            self._actions.get(timeout=timeout_s)() if timeout_s else self._actions.get_nowait()()
            while True:
                self._actions.get_nowait()()
        except queue.Empty:
            return
