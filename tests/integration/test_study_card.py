"""A study in a notebook's cell: its card, and a view that is drawn again while it runs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tests.support.stored_studies import add, fill
from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyFailed
from tunesvc.study import Study
from tunesvc.views import notebook_view
from tunesvc.views.notebook_view import NotebookView

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


def test_a_notebook_shows_a_study_without_scripts(shared_database: Database) -> None:
    """Fault 37."""
    fill(shared_database, name="note" + HOSTILE, running=0)
    html = Study("note" + HOSTILE, shared_database)._repr_html_()
    assert '<div class="history">' in html
    assert re.search(r"loss = \S+</strong>", html)
    assert "x = 0." in html
    assert "<script" not in html
    assert "<img" not in html


def test_a_notebook_shows_a_study_without_trials(shared_database: Database) -> None:
    with shared_database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="bare"))
    html = Study("bare", shared_database)._repr_html_()
    assert "No trial is complete and feasible yet." in html
    assert "<svg" not in html


def test_running_trials_have_their_curves(shared_database: Database) -> None:
    fill(shared_database, name="busy", running=9)
    html = Study("busy", shared_database)._repr_html_()
    assert html.count('class="spark"') == 6
    assert "and 3 more" in html
    assert "the best observed value so far" in html
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", html)


def test_a_front_is_shown_by_its_first_trials(shared_database: Database) -> None:
    metrics = [{"name": "loss"}, {"name": "cost"}]
    fill(shared_database, name="front", running=0, objectives=2, metrics=metrics)
    html = Study("front", shared_database)._repr_html_()
    assert html.count("cost = ") == 3
    assert re.search(r"the first 3 of \d+ trials of the Pareto front", html)


def test_an_interrupted_study_says_how_to_continue(shared_database: Database) -> None:
    study_id = fill(shared_database, name="left")
    with shared_database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE leases SET expires_at = now() WHERE study_id = :id"), {"id": study_id}
        )
    html = Study("left", shared_database)._repr_html_()
    assert "no process runs it; <code>tune resume left</code> continues it" in html


def test_failed_trials_are_listed_by_their_message(shared_database: Database) -> None:
    study_id = fill(shared_database, name="failing", running=0)
    with shared_database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE attempts SET message = CASE WHEN attempts.trial_id % 2 = 0 THEN 'ValueError: <b>' "
                "ELSE 'OSError' END, traceback = 'secret', failure = 'error' FROM trials WHERE study_id = :id "
                "AND trials.trial_id = attempts.trial_id"
            ),
            {"id": study_id},
        )
        connection.execute(
            sa.text("UPDATE trials SET state = 'fail' WHERE study_id = :id AND number >= 37"),
            {"id": study_id},
        )
    html = Study("failing", shared_database)._repr_html_()
    assert "trials 37, 39 failed: OSError" in html
    assert "trial 38 failed: ValueError: &lt;b&gt;" in html
    assert "secret" not in html, "a traceback only where nothing has succeeded"


def test_a_large_study_is_thinned(shared_database: Database) -> None:
    fill(shared_database, trials=2_000, name="large", budget={"trials": 3_000})
    html = Study("large", shared_database)._repr_html_()
    assert len(html) < 16_000
    assert html.count("h0") <= 300
    assert "trial 1,999" in html


class Cells:
    """The part of IPython's display that the view uses; keeps what it was sent."""

    def __init__(self) -> None:
        self.shown: dict[str, list[str]] = {}
        self.updated = threading.Event()

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: str) -> None:
        self.shown.setdefault(display_id, []).append(bundle["text/html"])

    def update_display(self, bundle: dict[str, str], *, raw: bool, display_id: str) -> None:
        self.display(bundle, raw=raw, display_id=display_id)
        self.updated.set()

    @property
    def last(self) -> str:
        (cards,) = self.shown.values()
        return cards[-1]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    cells = Cells()
    monkeypatch.setattr(notebook_view, "_display", lambda: cells)
    for pause in ("EVERY_S", "PAUSE_MAX_S"):
        monkeypatch.setattr(notebook_view, pause, 0.01)
    return cells


def view_of(database: Database, name: str) -> NotebookView:
    return NotebookView(
        name,
        lambda: database,
        "`stop()` ends the run",
        "train.start(resume=True)",
        threading.Event(),
    )


SNAPSHOT: Any = Progress.__new__(Progress)


def next_card(cells: Cells) -> str:
    for _ in range(2):  # the first one may have been read before
        cells.updated.clear()
        assert cells.updated.wait(20)
    return cells.last


def test_a_first_card_that_takes_long_does_not_delay_the_second(
    shared_database: Database, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports what the cards are drawn with, which takes a second and more."""
    monkeypatch.setattr(notebook_view, "PAUSE_MAX_S", 60.0)
    fill(shared_database, name="slow")

    def connected() -> Database:
        time.sleep(1.0)  # 5 % of 20 s
        return shared_database

    view = NotebookView("slow", connected, "", "", threading.Event())
    with view:
        view.progress(SNAPSHOT)
        for _ in range(3):
            cells.updated.clear()
            assert cells.updated.wait(12)


def test_a_view_follows_the_run_until_its_end(shared_database: Database, cells: Cells) -> None:
    study_id = fill(shared_database, name="live")
    with view_of(shared_database, "live") as view:
        assert "starting" in cells.last
        view.on_event(ProgressEvent("phase", "waiting for Ray"))
        assert "waiting for Ray …" in next_card(cells)
        view.progress(SNAPSHOT)
        assert "38 of 10 trials" in next_card(cells)
        assert "<code>train.start(resume=True)</code> continues it after a restart" in cells.last
        with shared_database.engine.begin() as connection:
            add(connection, study_id, 40, 5)
        assert "43 of 10 trials" in next_card(cells)
    count = len(next(iter(cells.shown.values())))
    assert "<code>train.start(resume=True)</code> continues the study" in cells.last
    view.show()
    assert len(next(iter(cells.shown.values()))) == count + 1, "shown once more, and not refreshed"


def test_the_error_of_a_run_stays_in_view(shared_database: Database, cells: Cells) -> None:
    fill(shared_database, name="wrong")
    view = view_of(shared_database, "wrong")
    view.show()
    view.progress(SNAPSHOT)
    view.end(RuntimeError("<b>lost</b>"))
    assert "RuntimeError: &lt;b&gt;lost&lt;/b&gt;" in cells.last


def test_what_the_study_itself_records_is_not_said_twice(
    shared_database: Database, cells: Cells
) -> None:
    fill(shared_database, name="recorded")
    view = view_of(shared_database, "recorded")
    view.show()
    view.progress(SNAPSHOT)
    view.end(StudyFailed("study failed", "recorded"))
    assert "StudyFailed" not in cells.last


def test_while_the_database_is_away_the_last_state_is_shown(
    database: Database, set_away: Callable[[bool], None], cells: Cells
) -> None:
    fill(database, name="cut")
    with view_of(database, "cut") as view:
        view.progress(SNAPSHOT)
        assert "38 of 10 trials" in next_card(cells)
        set_away(True)
        assert "the state below is the last one that was read" in next_card(cells)
        assert "38 of 10 trials" in cells.last
        set_away(False)
        assert "the state below is the last one" not in next_card(cells)
