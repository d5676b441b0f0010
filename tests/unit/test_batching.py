"""Batching of events: a reply waits for more events for a while, and no longer."""

from __future__ import annotations

import threading
import time

from tunesvc.execution.worker.batching import BatchSignal

GATHER_S = 0.3


def yes() -> bool:
    return True


def no() -> bool:
    return False


def test_a_wait_ends_with_a_notification() -> None:
    signal, said = BatchSignal(), threading.Event()
    threading.Timer(0.05, lambda: (said.set(), signal.notify())).start()
    with signal.lock:
        signal.wait(said.is_set, yes, 30.0)
    assert said.is_set()


def test_urgent_events_do_not_wait_for_the_batching_window() -> None:
    signal, urgent = BatchSignal(60.0), threading.Event()
    threading.Timer(0.05, lambda: (urgent.set(), signal.notify_urgent())).start()
    began_s = time.monotonic()
    with signal.lock:
        signal.wait(yes, yes, 0.0)
        signal.wait(yes, urgent.is_set, 0.0)
    assert time.monotonic() - began_s < 30.0


def test_what_one_listener_has_gathered_the_next_one_does_not_gather_again() -> None:
    """Otherwise a worker that receives commands again and again could never deliver its events."""
    signal = BatchSignal(GATHER_S)
    began_s = time.monotonic()
    with signal.lock:
        for _ in range(8):
            signal.wait(yes, no, 0.0)
    assert GATHER_S <= time.monotonic() - began_s < 7 * GATHER_S
    with signal.lock:
        signal.reset()
        signal.wait(yes, no, 0.0)
    assert time.monotonic() - began_s >= 2 * GATHER_S
