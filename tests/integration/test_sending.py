"""Submitting from a terminal and from Python, and following what a server runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.stored_studies import fill
from tunesvc import Float, tunable
from tunesvc.client.follower import Follower
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.sending import locate, send_study
from tunesvc.coordinator.progress_events import Progress, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority
from tunesvc.errors import ServerError, SpecError
from tunesvc.spec.yaml.document import load

ROOT = Path(__file__).parents[2]
SCRIPT = """\
from typing import Annotated
from tunesvc import Float, tunable

@tunable(metric="loss", trials=3)
def train(x: Annotated[float, Float(0, 1)], scale: float = 2.0):
    return x * scale

if __name__ == "__main__":
    view = train.submit(name="from a script", priority="low")
    print(view.state, view.spec.entrypoint, view.submission.priority, view.spec.constants)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))


def test_a_function_is_submitted_from_a_module(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "training_of_a_module.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(folder)
    train = importlib.import_module("training_of_a_module").train
    view = train.submit(trials=5, priority="urgent", database_url=database_url)
    assert view.spec.entrypoint == "training_of_a_module:train"
    assert view.spec.budget.trials == 5
    assert view.submission.priority == Priority.URGENT
    with pytest.raises(SpecError, match="priority 'soon' is none of low, normal"):
        train.submit(priority="soon", database_url=database_url)


@pytest.mark.slow
def test_a_function_is_submitted_from_a_script(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "TUNE_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "queued script.py:train low {'scale': 2.0}\n", done.stderr


def test_a_function_is_found_by_its_module() -> None:
    assert locate(locate) == ("tunesvc.client.sending:locate", ROOT)


def test_what_workers_cannot_import_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tunable(metric="loss", trials=3)
    def inner(x: float = 1.0) -> float:
        return x

    with pytest.raises(SpecError, match="at the top level of a module"):
        inner.submit(parameters={"x": Float(0, 1)})

    def cell(x: float) -> float:
        return x

    cell.__module__, cell.__qualname__ = "__main__", "cell"
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(SpecError, match="is in no file"):
        locate(cell)
    script = tmp_path / "script.py"
    script.write_text("train.submit()")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    with pytest.raises(SpecError, match="would submit it again"):
        locate(cell)


def test_a_sent_study_carries_where_it_comes_from(database: Database) -> None:
    document = load(ROOT / "studies" / "digits.yaml")
    client = LocalClient(database, "ada")
    view = send_study(
        client, document.spec, document.folder, text=document.text, priority=Priority.HIGH
    )
    assert view.provenance["packages"]["optuna"]
    assert view.provenance["folder"] == str(document.folder)
    assert view.source_text == document.text


class Seen:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.events: list[ProgressEvent] = []
        self.last: Progress | None = None

    def progress(self, progress: Progress) -> None:
        self.last = progress

    def on_event(self, event: ProgressEvent) -> None:
        self.events.append(event)


def test_a_follower_reports_a_study_that_has_ended_at_once(database: Database) -> None:
    fill(database, 30, running=0, name="bowl")
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE studies SET state = 'finished'"))
    client = LocalClient(database, "ada")
    seen = Seen()
    view = Follower(client, "bowl", seen).step()
    assert view is not None
    assert seen.last is not None
    assert seen.last.done + len(seen.last.live) == 30
    assert seen.last.best is not None
    assert seen.events == []


def test_a_follower_waits_for_a_server_that_is_away(database: Database) -> None:
    fill(database, 3, name="bowl")

    class Away(LocalClient):
        @property
        def studies(self):  # type: ignore[no-untyped-def,override]
            raise ServerError("the server http://x cannot be reached")

    seen = Seen()
    follower = Follower(Away(database, "ada"), "bowl", seen)
    assert follower.step() is None
    assert follower.step() is None
    assert [event.kind for event in seen.events] == ["phase"]
    assert "trying again" in seen.events[0].text
