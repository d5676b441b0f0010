"""Runs in the background of a process; the study is a stand-in."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from tunesvc import tunable
from tunesvc.background_run import BackgroundRun
from tunesvc.errors import SpecError, StudyFailed, StudyNotFound
from tunesvc.study import Study

STUDY = cast(Study, object())


def until_stopped(interrupt: threading.Event) -> Study:
    interrupt.wait(20)
    return STUDY


def not_stored() -> Study:
    raise StudyNotFound("there is no study 's'")


def test_it_runs_until_it_is_stopped() -> None:
    run = BackgroundRun("s", until_stopped, lambda: STUDY)
    assert run.is_running
    assert repr(run) == "<BackgroundRun of study 's': running>"
    with pytest.raises(TimeoutError):
        run.wait(timeout=0.01)
    run.stop()
    assert run.wait(20) is STUDY
    assert not run.is_running
    assert run.study is STUDY


def test_an_error_of_the_run_is_raised_where_it_is_waited_for() -> None:
    def fail(interrupt: threading.Event) -> Study:
        raise StudyFailed("s", 0, "odd")

    with pytest.raises(StudyFailed):
        BackgroundRun("s", fail, not_stored).wait(20)


def test_before_the_study_is_stored_a_notebook_shows_that_it_starts() -> None:
    run = BackgroundRun("s", until_stopped, not_stored)
    assert "is starting" in run._repr_html_()
    run.stop()


def test_mistakes_are_raised_before_anything_runs() -> None:
    @tunable(metric="loss")
    def train(lr: float) -> float:
        return lr

    before = threading.active_count()
    wrong: dict[str, Any] = {"trials": 3}
    with pytest.raises(SpecError, match="`lr` has neither a range nor a default"):
        train.start(**wrong)
    assert threading.active_count() == before
