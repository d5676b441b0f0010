"""Runs in the background of a process; the study is a stand-in."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tunesvc import tunable
from tunesvc.background_run import BackgroundRun
from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.errors import DatabaseUnavailable, SpecError, StudyExists
from tunesvc.study import Study
from tunesvc.views.notebook_view import NotebookView

STUDY = cast(Study, object())
RESUME = "train.start(resume=True)"


def until_stopped(interrupt: threading.Event, observer: Observer) -> Study:
    interrupt.wait(20)
    return STUDY


def away() -> Database:
    raise DatabaseUnavailable("no answer")


def test_it_runs_until_it_is_stopped() -> None:
    run = BackgroundRun("s", until_stopped, away, RESUME)
    assert run.is_running
    assert repr(run) == "<BackgroundRun of study 's': running>"
    with pytest.raises(TimeoutError):
        run.wait(timeout=0.01)
    run.stop()
    assert run.wait(20) is STUDY
    assert not run.is_running
    assert repr(run) == "<BackgroundRun of study 's': ended>"


def end(run: BackgroundRun) -> None:
    run.stop()
    run.wait(20)


def failing(interrupt: threading.Event, observer: Observer) -> Study:
    raise StudyExists("there is one")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("run", [failing, until_stopped])
def test_a_view_that_cannot_be_drawn_keeps_no_one_waiting(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(view: NotebookView, error: BaseException | None = None) -> None:
        raise RuntimeError("the frontend is gone")

    monkeypatch.setattr(NotebookView, "end", end)
    started = BackgroundRun("s", run, away, RESUME)
    started.stop()
    if run is failing:
        with pytest.raises(StudyExists):
            started.wait(20)
    else:
        assert started.wait(20) is STUDY
    for thread in threading.enumerate():  # its error must not reach the next test
        if thread.name == "tune s":
            thread.join(20)


def test_an_error_of_the_run_is_raised_where_it_is_waited_for_and_shown() -> None:
    run = BackgroundRun("s", failing, away, RESUME)
    with pytest.raises(StudyExists):
        run.wait(20)
    assert repr(run) == "<BackgroundRun of study 's': ended by StudyExists>"
    assert "StudyExists: there is one" in run._repr_html_()
    assert "not started" in run._repr_html_()


def test_before_the_study_is_stored_it_shows_that_it_starts() -> None:
    seen = threading.Event()

    def starting(interrupt: threading.Event, observer: Observer) -> Study:
        observer.on_event(ProgressEvent("phase", "waiting for Ray"))
        seen.set()
        return until_stopped(interrupt, observer)

    run = BackgroundRun("s", starting, away, RESUME)
    assert seen.wait(20)
    assert "starting" in run._repr_html_()
    assert "waiting for Ray" in run._repr_html_()
    end(run)


def test_a_coroutine_awaits_it_and_a_cancelled_one_leaves_it_alone() -> None:
    async def program() -> None:
        run = BackgroundRun("s", until_stopped, away, RESUME)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.01)
        assert run.is_running
        run.stop()
        assert await run is STUDY

    asyncio.run(program())


@pytest.fixture
def sigint_raises() -> Iterator[None]:
    """Earlier tests of the process may have left another handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_raises")
def test_interrupting_the_wait_leaves_the_run_alone_and_says_so() -> None:
    run = BackgroundRun("s", until_stopped, away, RESUME)
    main = threading.main_thread().ident
    threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt, match="'s' continues in the background, and `stop"):
        run.wait(20)
    assert run.is_running
    end(run)


def test_outside_of_notebooks_it_prints_itself(capsys: pytest.CaptureFixture[str]) -> None:
    run = BackgroundRun("s", until_stopped, away, RESUME)
    run.show()
    assert capsys.readouterr().out == "<BackgroundRun of study 's': running>\n"
    with pytest.raises(NotImplementedError):
        run._ipython_display_()
    end(run)


def test_mistakes_are_raised_before_anything_runs() -> None:
    @tunable(metric="loss")
    def train(lr: float) -> float:
        return lr

    wrong: dict[str, Any] = {"trials": 3}
    with pytest.raises(SpecError, match="`lr` has neither a range nor a default"):
        train.start(**wrong)
    assert "tune train" not in [thread.name for thread in threading.enumerate()]
