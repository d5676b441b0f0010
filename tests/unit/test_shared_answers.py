"""Answers that are shared: never older than the question, and made once for all that wait."""

from __future__ import annotations

import asyncio
import threading

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

    async def scenario() -> None:
        first = asyncio.create_task(answers.get("study", make))
        while not first_began.is_set():
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(answers.get("study", make)) for _ in range(200)]
        await asyncio.sleep(0.01)
        may_end.set()
        assert await first == b"1"
        assert set(await asyncio.gather(*others)) == {b"2"}

    asyncio.run(scenario())
    assert made == 2


def test_a_later_question_gets_a_newer_answer() -> None:
    answers = SharedAnswers()

    async def scenario() -> None:
        assert await answers.get("study", lambda: b"old") == b"old"
        assert await answers.get("study", lambda: b"new") == b"new"

    asyncio.run(scenario())


def test_a_failure_is_no_answer_and_few_are_kept() -> None:
    answers = SharedAnswers(limit=2)

    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            await answers.get("study", lambda: bytes(1 // 0))
        for name in ("study", "a", "b"):
            assert await answers.get(name, lambda: b"kept") == b"kept"
        assert len(answers._answers) == 2

    asyncio.run(scenario())
