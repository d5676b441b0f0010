"""Whom a worker obeys, and when it takes itself for forgotten."""

from __future__ import annotations

import threading

from tunesvc.execution.worker.fencing import TokenFence


def test_a_higher_token_is_obeyed_and_lower_ones_are_refused_from_then_on() -> None:
    callers = TokenFence(3)
    for token, expected in [(2, False), (3, True), (5, True), (3, False), (5, True)]:
        with callers.call(token) as admitted:
            assert admitted == expected
    assert callers.holds(5)
    assert not callers.holds(4)


def test_a_call_that_takes_longer_than_the_patience_is_no_silence() -> None:
    callers, forgotten = TokenFence(0), threading.Event()
    with callers.call(0):
        callers.watch(0.05, forgotten.set)
        assert not forgotten.wait(0.3)
        assert not callers.is_over
    assert forgotten.wait(10)
    assert callers.is_over


def test_a_call_that_is_refused_is_no_sign_that_the_worker_is_wanted() -> None:
    callers, forgotten = TokenFence(1), threading.Event()
    callers.watch(0.05, forgotten.set)
    while not forgotten.is_set():
        with callers.call(0) as admitted:
            assert not admitted
        forgotten.wait(0.001)
