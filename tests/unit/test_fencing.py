"""Fencing: which coordinator a worker obeys, and when it counts itself as orphaned."""

from __future__ import annotations

import threading

from tunesvc.execution.worker.fencing import TokenFence


def test_a_higher_token_is_obeyed_and_lower_ones_are_refused_from_then_on() -> None:
    fence = TokenFence(3)
    for token, expected in [(2, False), (3, True), (5, True), (3, False), (5, True)]:
        with fence.admit(token) as admitted:
            assert admitted == expected
    assert fence.is_current(5)
    assert not fence.is_current(4)


def test_a_call_that_takes_longer_than_the_patience_is_no_silence() -> None:
    fence, forgotten = TokenFence(0), threading.Event()
    with fence.admit(0):
        fence.watch(0.05, forgotten.set)
        assert not forgotten.wait(0.3)
        assert not fence.is_expired
    assert forgotten.wait(10)
    assert fence.is_expired


def test_a_call_that_is_refused_is_no_sign_that_the_worker_is_wanted() -> None:
    fence, forgotten = TokenFence(1), threading.Event()
    fence.watch(0.05, forgotten.set)
    while not forgotten.is_set():
        with fence.admit(0) as admitted:
            assert not admitted
        forgotten.wait(0.001)
