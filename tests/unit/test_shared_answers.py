"""Answers that are shared: never older than the question, and made once for all that wait."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tunesvc.web.live.shared_answers import SharedAnswers


def test_all_that_wait_get_one_answer_which_is_begun_after_they_asked() -> None:
    answers, made = SharedAnswers(), 0
    first_began, may_end = threading.Event(), threading.Event()

    def make() -> bytes:
        nonlocal made
        made += 1
        first_began.set()
        assert may_end.wait(10)
        return str(made).encode()

    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(answers.get, "study", time.monotonic(), make)
        assert first_began.wait(10)
        others = [pool.submit(answers.get, "study", time.monotonic(), make) for _ in range(20)]
        time.sleep(0.05)
        may_end.set()
        assert first.result() == b"1"
        assert {one.result() for one in others} == {b"2"}
    assert made == 2


def test_a_later_question_gets_a_newer_answer() -> None:
    answers = SharedAnswers()
    assert answers.get("study", time.monotonic(), lambda: b"old") == b"old"
    assert answers.get("study", time.monotonic(), lambda: b"new") == b"new"
    asked_s = time.monotonic()
    assert answers.get("study", asked_s, lambda: b"newer") == b"newer"
    assert answers.get("study", asked_s, lambda: b"never") == b"newer"


def test_a_failure_is_no_answer_and_few_are_kept() -> None:
    answers = SharedAnswers(limit=2)
    asked_s = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        answers.get("study", asked_s, lambda: bytes(1 // 0))
    assert answers.get("study", asked_s, lambda: b"kept") == b"kept"
    for name in ("a", "b"):
        answers.get(name, asked_s, lambda: b"other")
    assert answers.get("study", asked_s, lambda: b"made again") == b"made again"
