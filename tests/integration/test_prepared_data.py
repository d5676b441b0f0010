"""Studies with `data` on real Ray and real Postgres: prepared once, mapped by every trial."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tunesvc
from tests.support.ray_fixtures import address_of_local_ray
from tests.support.specs import make_spec
from tunesvc.cli import app
from tunesvc.coordinator.progress_events import SilentObserver
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.errors import DataError
from tunesvc.preparation.data_store import DataStore
from tunesvc.runtime.data_preparation import prepare_data, prepare_version
from tunesvc.study import Study

OBJECTIVES = Path(__file__).parent.parent / "objectives"
DATA = {
    "source": "on_data:people",
    "target": "bought",
    "steps": [{"apply": ["standardize"]}],
}
pytestmark = pytest.mark.usefixtures("local_ray")

RunStudy = Callable[..., Study]


@pytest.fixture
def run(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> RunStudy:
    """Write a study file beside its objectives, and run it."""
    shutil.copy(OBJECTIVES / "on_data.py", tmp_path)
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))

    def run(*, resume: bool = False, **keys: Any) -> Study:
        spec = {
            "name": "people",
            "entrypoint": "on_data:train",
            "metric": "error",
            "parameters": {"x": {"min": -1.0, "max": 1.0}},
            "budget": 2,
            "parallelism": 1,
            "data": DATA,
        } | keys
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps({name: key for name, key in spec.items() if key is not None}))
        return tunesvc.run(file, database_url=database_url, resume=resume)

    return run


def test_trials_share_the_object_store_and_later_studies_the_version(
    run: RunStudy, tmp_path: Path, database: Database, database_url: str
) -> None:
    study = run()
    attributes = [trial.user_attrs for trial in study.optuna().trials]
    assert [one["rows"] for one in attributes] == [12_000, 12_000]
    assert all(one["is_view"] for one in attributes)
    (place,) = {one["lies_in"] for one in attributes}
    assert "plasma" in place
    (manifest,) = DataStore.open().list()
    begun = manifest.created_at
    assert study.view.spec is not None
    another = study.view.spec.model_copy(update={"name": "another"})
    with database.engine.begin() as connection:
        record = study_records.create(connection, another, None, str(tmp_path))
    prepare_data(database, record, another, SilentObserver(), threading.Event())
    (manifest,) = DataStore.open().list()
    assert manifest.created_at == begun
    (tmp_path / "on_data.py").write_text(
        (OBJECTIVES / "on_data.py").read_text().replace("range(20_000)", "range(1, 20_001)")
    )
    with pytest.raises(DataError, match=f"has trials on data of version {manifest.version}"):
        run(budget=4, resume=True)
    commands(database_url, manifest.version)


def commands(database_url: str, version: str) -> None:
    """Look at the two versions, and remove the one that studies used."""

    def tune(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["data", *words])
        assert done.exit_code == code, done.output
        return done.output

    database = ("--database-url", database_url)
    (changed, used) = json.loads(tune("ls", "--json", *database))
    assert (used["version"], used["studies"]) == (version, ["another", "people"])
    assert changed["studies"] == []
    assert "another, people" in tune("show", version[:6], *database)
    difference = tune("diff", version, changed["version"])
    assert "new rows" in difference or "changed columns: age" in difference
    assert "is the data of another, people" in tune("rm", "people", *database, code=2)
    tune("rm", "people", "--force", *database)
    assert [one["version"] for one in json.loads(tune("ls", "--json", *database))] == [
        changed["version"]
    ]


@pytest.mark.slow
def test_a_program_and_a_process_map_the_file(run: RunStudy, tmp_path: Path) -> None:
    process = run(environment={"isolation": "process"}, budget=1)
    (manifest,) = DataStore.open().list()
    expected = f"/{manifest.version}/train.arrow"
    assert process.optuna().trials[0].user_attrs["lies_in"].endswith(expected)
    (tmp_path / "program.py").write_text(
        "import sys, tunesvc\nfrom on_data import train\n"
        "trial = tunesvc.current_trial()\n"
        "trial.report(0, error=train(float(sys.argv[1]), trial))\n"
    )
    command = [sys.executable, "program.py", "${x}"]
    program = run(name="program", entrypoint=None, command=command, budget=1)
    assert program.optuna().trials[0].user_attrs["lies_in"].endswith(expected)


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing(run: RunStudy, tmp_path: Path) -> None:
    data = {**DATA, "steps": [{"apply": [{"class": "on_data:Kills"}]}]}
    with pytest.raises(DataError, match="ended without a result"):
        run(data=data)
    assert list(DataStore.open().list()) == []
    assert not Path((tmp_path / "killed").read_text()).exists()
    assert run(data=data, resume=True).state == "finished"
    assert len(list(DataStore.open().list())) == 1


def test_bad_data_is_refused_before_a_worker_starts(
    run: RunStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_worker(*_: object) -> None:
        raise AssertionError("a worker was asked for")

    monkeypatch.setattr("tunesvc.runtime.run_study.make_job", no_worker)
    with pytest.raises(DataError, match="no column 'sold'"):
        run(data={**DATA, "target": "sold"})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """Environments of the processes that were to be started; none is."""
    environments: list[Mapping[str, str]] = []

    @contextmanager
    def recorded(_: object, environment: Mapping[str, str], *__: object) -> Iterator[None]:
        environments.append(environment)
        yield

    monkeypatch.setattr("tunesvc.execution.supervision.connected_process.supervised", recorded)
    return environments


def test_the_process_that_asks_a_cluster_gets_no_secret_of_the_server(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[Mapping[str, str]],
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("TUNE_DATABASE_URL", "PGPASSWORD", "TUNE_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a-secret-of-the-server")
    spec = make_spec(data={"source": "on_data:people", "target": "bought"}, cluster="10.0.0.1:6379")
    with database.engine.begin() as connection:
        record = study_records.create(connection, spec, None, str(tmp_path))
    with pytest.raises(DataError, match="ended without a result"):
        prepare_data(database, record, spec, SilentObserver(), threading.Event(), is_served=True)
    (environment,) = started
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "a-secret-of-the-server" not in environment.values()


@pytest.mark.parametrize(("is_served", "is_inherited"), [(True, False), (False, True)])
def test_code_of_a_study_gets_no_secret_of_a_server_without_a_cluster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[Mapping[str, str]],
    is_served: bool,
    is_inherited: bool,
) -> None:
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_PROFILE", "of the store")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in (
        *("TUNE_DATABASE_URL", "TUNE_TOKEN", "TUNE_OIDC_CLIENT_SECRET"),
        *("PGPASSWORD", "RAY_AUTH_TOKEN"),
    ):
        monkeypatch.setenv(name, "a-secret-of-the-server")
    spec = make_spec(
        data={"source": "on_data:people", "target": "bought"},
        environment={"env": {"REGION": "north"}},
    )
    with pytest.raises(DataError, match="ended without a result"):
        prepare_version(spec, tmp_path, SilentObserver(), threading.Event(), is_served=is_served)
    (environment,) = started
    assert (environment["REGION"], environment["AWS_PROFILE"]) == ("north", "of the store")
    assert environment["TMPDIR"] != str(tmp_path)
    assert ("a-secret-of-the-server" in environment.values()) is is_inherited


@pytest.mark.slow
def test_a_server_lets_the_cluster_prepare_so_that_it_runs_no_code_of_studies(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`faults/test_server_faults` has a whole study."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    shutil.copy(OBJECTIVES / "on_data.py", tmp_path)
    spec = make_spec(
        entrypoint="on_data:train",
        data={"source": "on_data:people_of_a_task", "target": "bought"},
        cluster=address_of_local_ray(),
    )
    with database.engine.begin() as connection:
        record = study_records.create(connection, spec, None, str(tmp_path))
    with pytest.raises(DataError, match="raised RuntimeError: in task [0-9a-f]{48}"):
        prepare_data(database, record, spec, SilentObserver(), threading.Event(), is_served=True)
