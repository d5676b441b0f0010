"""The collector deletes what nothing needs, and nothing that a trial may need."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.artifacts.trial_checkpoints import TrialCheckpoints
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.queries.operations.recorded_checkpoints import EndedTrial, list_ended_trials
from tunesvc.service.artifact_collector import ArtifactCollector, collect_trial
from tunesvc.spec.sections.execution_keys import Keep


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"file://{tmp_path}/checkpoints"


def saved(root: str, number: int, steps: dict[int, float | None], attempt: int = 1) -> str:
    """Store checkpoints of a trial; returns the location of the last one."""
    store, base = TrialCheckpoints.open(root, number), None
    folder = Path(root.removeprefix("file://")).parent / "state"
    for index, (step, value) in enumerate(steps.items(), 1):
        folder.mkdir(exist_ok=True)
        (folder / "base").write_text("frozen")
        (folder / "head").write_text(str(step))
        name = f"attempt-{attempt}-step-{step}-{index}"
        base = store.put(folder, name, value=value, base=base)
    assert base is not None
    return store.location(base)


def age(root: str, days: float, pattern: str = "**/*") -> None:
    moment = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    for path in Path(root.removeprefix("file://")).glob(pattern):
        os.utime(path, (moment, moment))


def collect(location: str, keep: Keep | None = None) -> list[str]:
    before = datetime.now(UTC) - timedelta(days=1)
    collect_trial(EndedTrial(0, location, keep or Keep(), "minimize"), before)
    return sorted(TrialCheckpoints.of(location)[0].names())


def test_what_a_worker_could_not_delete_any_more_is_deleted(root: str, tmp_path: Path) -> None:
    location = saved(root, 0, {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3})
    assert collect(location) == ["attempt-1-step-2-2", "attempt-1-step-4-4"]
    for name in ("attempt-1-step-2-2", "attempt-1-step-4-4"):
        back = TrialCheckpoints.open(root, 0).get(name, tmp_path / name)
        assert (back / "base").read_text() == "frozen"
    assert collect(location) == ["attempt-1-step-2-2", "attempt-1-step-4-4"]


def test_the_recorded_one_is_kept_though_a_newer_one_was_stored(root: str) -> None:
    """Its worker died before the coordinator heard of it."""
    saved(root, 0, {1: None, 2: None})
    recorded = f"{root}/0/attempt-1-step-1-1/state"
    assert collect(recorded) == ["attempt-1-step-1-1", "attempt-1-step-2-2"]
    age(root, 2)
    assert collect(recorded) == ["attempt-1-step-1-1"]
    _, name = TrialCheckpoints.of(recorded)
    assert TrialCheckpoints.open(root, 0).find(name).parts[0].artifact.bytes == 6


def test_an_upload_under_way_stays_for_a_day(root: str, tmp_path: Path) -> None:
    location = saved(root, 0, {1: None})
    upload = tmp_path / "checkpoints" / "0" / "attempt-2-step-9-1" / "uploads" / "x"
    upload.parent.mkdir(parents=True)
    upload.write_text("part")
    collect(location)
    assert upload.exists()
    age(root, 2)
    collect(location)
    assert not upload.exists()
    assert TrialCheckpoints.of(location)[0].names() == ["attempt-1-step-1-1"]


def test_only_trials_that_have_ended_are_looked_at(database: Database, root: str) -> None:
    study = fill(database, 4, running=2, name="bowl")
    with database.engine.begin() as connection:
        for number in range(4):
            connection.execute(
                sa.text("UPDATE attempts SET checkpoint = :path WHERE trial_id = :trial"),
                {
                    "path": f"{root}/{number}/attempt-1-step-1-1/state",
                    "trial": trial_id(study, number),
                },
            )
        states = connection.execute(sa.text("SELECT number, state FROM trials")).all()
    ended = {number for number, state in states if state in ("complete", "pruned", "fail")}
    assert len(ended) == 2  # the others run, as paused ones do for Optuna
    found = list_ended_trials(database, timedelta(days=3))
    assert {trial.number for trial in found} == ended
    assert {trial.keep for trial in found} == {make_spec().keep}
    search = '{"method": "pbt", "population": 4, "interval": 5, "steps": 20}'
    with database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE studies SET ended_at = NULL, spec = jsonb_set(CAST(spec AS jsonb),"
                " '{search}', CAST(:search AS jsonb))"
            ),
            {"search": search},
        )
    assert not list_ended_trials(database, timedelta(days=3)), "copies may start from them"
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE studies SET ended_at = now()"))
    assert {trial.number for trial in list_ended_trials(database, timedelta(days=3))} == ended


def test_a_server_collects_snapshots_and_checkpoints(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_ARTIFACTS", str(tmp_path / "store"))
    ArtifactCollector(database).collect()
