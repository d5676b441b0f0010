"""One suite for final runs on servers through both clients, without trainings."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import tunesvc
from tests.support.accounts import make_team, serving_accounts
from tests.support.used_test_parts import end_final_run, searched, submitted
from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.cli import app
from tunesvc.client.interface import TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.remote.http_client import Client
from tunesvc.db.engine.database import Database
from tunesvc.db.study_records import project_of
from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactStoreUnavailable,
    ArtifactTooLarge,
    DataError,
    ServerError,
    StudyNotFound,
    TuneError,
)
from tunesvc.instrumentation import failpoints
from tunesvc.instrumentation.failpoints import FailpointReached
from tunesvc.models.model_store import ModelMetadata, ModelStore
from tunesvc.queries.operations.final_models import list_unstored_models
from tunesvc.queries.rows import StudyStatus
from tunesvc.runtime.finals import model_export, served_finals
from tunesvc.service.model_keeper import ModelKeeper
from tunesvc.web import DashboardServer


@pytest.fixture(scope="module")
def server(
    shared_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DashboardServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_ARTIFACTS", str(tmp_path_factory.mktemp("store")))
        with DashboardServer(shared_database, port=0) as server:
            yield server


@pytest.fixture(scope="module", params=["local", "http"])
def client(
    request: pytest.FixtureRequest, server: DashboardServer, shared_database: Database
) -> Iterator[TuneClient]:
    if request.param == "local":
        yield LocalClient(shared_database, "ada")
        return
    with Client(server.url, server.new_token()) as client:
        yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Name of a study that no other test has."""
    return f"shop-{os.urandom(4).hex()}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without login and without fetched models."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    for variable in ("TUNE_SERVER", "TUNE_TOKEN", "TUNE_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


class Hostile:
    """An object that writes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return Path.touch, (self.file,)


def saved_model(folder: Path) -> Path:
    """Return a folder as a worker saves one; to unpickle it writes the file `opened`."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "model.pkl").write_bytes(pickle.dumps(Hostile(folder / "opened")))
    return model


def test_the_test_part_is_used_once_unless_again(
    client: TuneClient, shared_database: Database, name: str
) -> None:
    submitted(shared_database, name)
    assert client.insights.test_result(name) is None
    first = client.submissions.test(name)
    assert first is not None
    assert (first.study.name, first.trial) == (f"{name}:test", 0)
    assert first.study.state is StudyStatus.QUEUED
    second = client.submissions.test(name)  # another client at the same time
    assert second is not None
    assert (second.study.study_id, second.trial) == (first.study.study_id, 0)
    assert second.study.counts.total == 1
    end_final_run(shared_database, f"{name}:test", 0, 0.3)
    assert client.submissions.test(name) is None
    result = client.insights.test_result(name)
    assert result is not None
    assert (result.trial, result.test, len(result.uses)) == (1, 0.3, 1)
    again = client.submissions.test(name, again=True)
    assert again is not None
    assert again.trial == 1
    end_final_run(shared_database, f"{name}:test", 1, 0.4)
    result = client.insights.test_result(name)
    assert result is not None
    assert (result.test, len(result.uses)) == (0.4, 2)


def test_what_cannot_have_a_final_run_is_refused_with_the_remedy(
    client: TuneClient, shared_database: Database, name: str
) -> None:
    searched(shared_database, name)
    submitted(shared_database, f"{name}-python", entrypoint=None)
    submitted(shared_database, f"{name}-ended")
    cases: list[tuple[Callable[[TuneClient], object], type[TuneError], str]] = [
        (
            lambda one: one.submissions.test(name),
            TuneError,
            rf"was not submitted.*run `tune best {name} --test` where it ran, without a server",
        ),
        (lambda one: one.submissions.apply(name), TuneError, "was not submitted"),
        (
            lambda one: one.submissions.apply(f"{name}-python"),
            TuneError,
            r"started from Python.*\.apply\(function=\.\.\.\)",
        ),
        (lambda one: one.submissions.apply(f"{name}-ended", 9), StudyNotFound, "no trial 9"),
        (lambda one: one.submissions.test("no study"), StudyNotFound, "no study"),
        (lambda one: one.insights.fetch_model(name), DataError, f"`tune apply {name} --train`"),
    ]
    for call, error, text in cases:
        raised = []
        for one in (client, LocalClient(shared_database, "ada")):
            with pytest.raises(error, match=text) as caught:
                call(one)
            raised.append(caught.value)
        assert type(raised[0]) is type(raised[1])
        assert str(raised[0]) == str(raised[1])


def test_a_model_is_stored_without_its_client_and_fetched_whole(
    client: TuneClient, shared_database: Database, name: str, home: Path
) -> None:
    submitted(shared_database, name)
    final = client.submissions.apply(name)
    assert client.submissions.apply(name).trial == final.trial
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    assert client.insights.model(name, final.trial) is None
    keeper = ModelKeeper(shared_database)
    assert keeper.store_due() == 1
    assert keeper.store_due() == 0
    found = client.insights.model(name, final.trial)
    assert found is not None
    assert (found.metadata.study, found.metadata.trial) == (name, 1)
    assert found.metadata.trained_by in ("ada", final.study.submission.submitted_by)  # type: ignore[union-attr]
    served_finals.store_finished(shared_database, final.study.study_id)  # as another server
    assert client.insights.model(name) == found
    folder = client.insights.fetch_model(name)
    assert folder.is_relative_to(home)
    assert {path.name for path in folder.iterdir()} == {"model", "tunesvc-model.json"}
    original = home / "model" / "model.pkl"
    assert (folder / "model" / "model.pkl").read_bytes() == original.read_bytes()
    assert not (home / "opened").exists(), "nothing was unpickled"
    assert client.insights.fetch_model(name) == folder


def test_a_death_before_the_record_stores_the_same_archive_again(
    shared_database: Database, server: DashboardServer, name: str, home: Path
) -> None:
    submitted(shared_database, name)
    client = LocalClient(shared_database, "ada")
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    failpoints.arm("stored:raise")
    try:
        with pytest.raises(FailpointReached):
            served_finals.store_finished(shared_database, final.study.study_id)
    finally:
        failpoints.arm(None)
    first = ModelStore.open().find_stored(name)
    with pytest.raises(TuneError, match="FailpointReached: .*; servers try again"):
        client.insights.model(name, final.trial)
    assert ModelKeeper(shared_database).store_due() == 1
    assert client.insights.model(name, final.trial) == first


def test_a_viewer_sees_the_result_and_copies_the_model(
    shared_database: Database,
    server: DashboardServer,
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    team = make_team(shared_database)
    team.own(submitted(shared_database, name).study_id)
    with serving_accounts(shared_database) as (served, _):
        place = ("--server", served.url)
        monkeypatch.setenv("TUNE_TOKEN", team.secrets["viewer"])
        assert "may not steer" in tune("best", name, "--test", *place, code=8)
        assert "may not steer" in tune("apply", name, "--train", *place, code=8)
        with Client(served.url, team.secrets["operator"]) as operator:
            operator.submissions.test(name)
            final = operator.submissions.apply(name)
        assert final.study.submission is not None
        assert final.study.submission.submitted_by == "operator"
        end_final_run(shared_database, f"{name}:test", 0, 0.3)
        end_final_run(shared_database, f"{name}:apply", 0, 0.3, saved_model(home))
        ModelKeeper(shared_database).store_due()
        assert "test 0.3" in tune("best", name, "--test", *place)
        assert "may not steer" in tune("best", name, "--test", "--again", *place, code=8)
        tune("apply", name, "--out", str(home / "copy"), *place)
        assert (home / "copy" / "model" / "model.pkl").exists()
        monkeypatch.setenv("TUNE_TOKEN", team.secrets["outsider"])
        tune("apply", name, *place, code=3)


def test_final_runs_move_with_their_study(shared_database: Database, name: str) -> None:
    record = submitted(shared_database, name)
    client = LocalClient(shared_database, "ada")
    final = client.submissions.test(name)
    assert final is not None
    client.accounts.add_project(f"project-of-{name}")
    client.accounts.move_study(name, f"project-of-{name}")
    with shared_database.engine.connect() as connection:
        project = project_of(connection, record.study_id)
        assert project is not None
        assert project_of(connection, final.study.study_id) == project


def test_a_model_of_an_earlier_study_of_that_name_is_not_shown(
    client: TuneClient, shared_database: Database, name: str, home: Path
) -> None:
    """The earlier one may be of another project."""
    submitted(shared_database, name)
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    ModelKeeper(shared_database).store_due()
    assert client.insights.model(name) is not None
    client.studies.delete(name)
    submitted(shared_database, name)
    assert client.insights.model(name) is None
    with pytest.raises(DataError, match="another study named"):
        client.submissions.apply(name)
    final = client.submissions.apply(name, replace=True)
    end_final_run(shared_database, final.study.name, final.trial, 0.2, saved_model(home))
    ModelKeeper(shared_database).store_due()
    found = client.insights.model(name, final.trial)
    assert found is not None
    assert found.metadata.validation == 0.25


def test_the_reason_reaches_the_client_if_a_model_cannot_be_stored(
    client: TuneClient,
    shared_database: Database,
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(shared_database, name)
    keeper = ModelKeeper(shared_database)
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial)
    keeper.store_due()
    with pytest.raises(TuneError, match="has run and saved no model"):
        client.insights.model(name, final.trial)
    assert keeper.store_due() == 0
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    monkeypatch.setattr(served_finals, "MODEL_BYTES_MAX", 10)
    keeper.store_due()
    with pytest.raises(ArtifactTooLarge, match=r"has \d+ bytes, and a server stores at most 10"):
        client.insights.model(name, final.trial)
    monkeypatch.undo()
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    checkpoints = (home / "checkpoints").rename(home / "elsewhere")
    keeper.store_due()
    assert client.insights.model(name, final.trial) is None, "another server may have them"
    assert keeper.store_due() == 0, "it is tried again later"
    checkpoints.rename(home / "checkpoints")
    assert ModelKeeper(shared_database).store_due() == 1  # another server
    found = client.insights.model(name, final.trial)
    assert found is not None
    (home / "checkpoints").rename(home / "elsewhere")
    with pytest.raises(TuneError, match="is not on this machine"):
        served_finals.store_finished(shared_database, final.study.study_id)
    assert client.insights.model(name, final.trial) == found


def test_a_model_is_stored_later_if_the_store_does_not_answer(
    client: TuneClient,
    shared_database: Database,
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(shared_database, name)
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))

    def fail(*_: object, **__: object) -> None:
        raise ArtifactStoreUnavailable("the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "publish", fail)
        assert ModelKeeper(shared_database).store_due() == 1
        with pytest.raises(ArtifactStoreUnavailable, match="the store is full"):
            client.insights.model(name, final.trial)
    assert list_unstored_models(shared_database) == (final.study.study_id,)
    ModelKeeper(shared_database).store_due()
    assert client.insights.model(name, final.trial) is not None


def test_a_model_that_cannot_be_stored_holds_up_no_other(
    shared_database: Database, name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = LocalClient(shared_database, "ada")
    finals = {}
    for study in (f"{name}-a", f"{name}-b"):
        submitted(shared_database, study)
        finals[study] = client.submissions.apply(study)
        assert finals[study].study.owner == "ada"
        end_final_run(shared_database, f"{study}:apply", 0, 0.3, saved_model(home))
    write = model_export.write_metadata

    def fill_the_disk(folder: Path, metadata: ModelMetadata) -> None:
        if metadata.study == f"{name}-a":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, metadata)

    keeper = ModelKeeper(shared_database)
    with monkeypatch.context() as patch:
        patch.setattr(model_export, "write_metadata", fill_the_disk)
        assert keeper.store_due() == 2
    assert client.insights.model(f"{name}-b", 0) is not None
    with pytest.raises(TuneError, match="No space left on device; servers try again"):
        client.insights.model(f"{name}-a", 0)
    assert keeper.store_due() == 0, "it is tried again later"
    assert ModelKeeper(shared_database).store_due() == 1
    assert client.insights.model(f"{name}-a", 0) is not None
    client.studies.delete(f"{name}-a:apply")
    with pytest.raises(StudyNotFound, match="was deleted: `tune apply"):
        client.insights.model(f"{name}-a", 0)


def test_a_full_disk_while_files_are_copied_is_no_final_error(
    shared_database: Database, name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(shared_database, name)
    client = LocalClient(shared_database, "ada")
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", 0, 0.3, saved_model(home))

    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tunesvc.artifacts.checkpoint_archive.unpack", fill_the_disk)
        ModelKeeper(shared_database).store_due()
    assert list_unstored_models(shared_database) == (final.study.study_id,)
    named = saved_model(home).rename(home / "tunesvc-model.json")
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, named)
    ModelKeeper(shared_database).store_due()
    assert list_unstored_models(shared_database) == ()
    with pytest.raises(TuneError, match="give it another name"):
        client.insights.model(name, final.trial)


def test_a_deleted_study_leaves_nothing_to_store(
    client: TuneClient, shared_database: Database, name: str, home: Path
) -> None:
    submitted(shared_database, name)
    final = client.submissions.apply(name)
    end_final_run(shared_database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    client.studies.delete(name)
    ModelKeeper(shared_database).store_due()
    assert ModelStore.open().find(name) is None
    assert list_unstored_models(shared_database) == ()
    with pytest.raises(StudyNotFound):
        client.insights.model(name)


def test_a_damaged_download_is_refused_and_leaves_nothing(
    server: DashboardServer, shared_database: Database, name: str, home: Path
) -> None:
    stored(shared_database, name, home)
    with Client(server.url, server.new_token()) as client:
        found = client.insights.model(name)
        assert found is not None
        headers = {"Authorization": f"Bearer {server.new_token()}"}
        address = f"{server.url}/api/v1/studies/{name}/models"
        answer = httpx.get(f"{address}/{found.digest}", headers=headers)
        assert int(answer.headers["content-length"]) == found.bytes == len(answer.content)
        assert answer.headers["repr-digest"].startswith("sha-256=:")
        assert httpx.get(f"{address}/{'0' * 64}", headers=headers).status_code == 404
        digest = found.digest
        archive = Path(ModelStore.open().address.removeprefix("file://"))
        file = archive / "models" / "sha256" / digest[:2] / digest
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"x")
        with pytest.raises((ArtifactDamaged, TuneError)):
            client.insights.fetch_model(name)
        assert not list((home / "home" / "models").iterdir())
        file.write_bytes(content)
        assert client.insights.fetch_model(name).is_dir()


def test_load_model_looks_where_commands_do(
    server: DashboardServer,
    shared_database: Database,
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored(shared_database, name, home)
    monkeypatch.setenv("TUNE_TOKEN", server.new_token())
    monkeypatch.setattr("tunesvc.client.remote.connection.RETRY_S", 0.0)
    with pytest.raises(ServerError, match="cannot be reached"):
        tunesvc.load_model(name, server="http://127.0.0.1:9")
    assert tunesvc.load_model(name, server=server.url).metadata.study == name
    monkeypatch.setenv("TUNE_SERVER", server.url)
    model = tunesvc.load_model(name)
    assert model.path.name == "model"
    assert not (home / "opened").exists()
    with pytest.raises(DataError, match="no trained model"):
        tunesvc.load_model(name, str(home / "elsewhere"))
    with pytest.raises(ValueError, match="either"):
        tunesvc.load_model(name, "a", server="b")
    with pytest.raises(StudyNotFound):
        tunesvc.load_model("no study")


def test_commands_follow_a_final_run_and_print_what_they_print_here(
    server: DashboardServer,
    shared_database: Database,
    name: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted(shared_database, name)
    monkeypatch.setenv("TUNE_TOKEN", server.new_token())
    place = ("--server", server.url)
    url = shared_database.engine.url.render_as_string(hide_password=False)
    here = ("--database-url", url)
    test = f"{name}:test"
    with begun(shared_database, test, lambda: end_final_run(shared_database, test, 0, 0.3)):
        tested = tune("best", name, "--test", *place)
    assert "validation 0.25, test 0.3: 0.05 worse" in " ".join(tested.split())
    for form in ((), ("--json",)):
        recorded = tune("best", name, "--test", *form, *place)
        assert recorded == tune("best", name, "--test", *form, *here)
    assert '"is_new": false' in recorded

    def train() -> None:
        end_final_run(shared_database, f"{name}:apply", 0, 0.3, saved_model(home))
        ModelKeeper(shared_database).store_due()

    with begun(shared_database, f"{name}:apply", train):
        trained = tune("apply", name, "--train", "--out", str(home / "out"), *place)
    assert "Trained" in trained
    assert (home / "out" / "tunesvc-model.json").exists()
    assert "is there already" in tune("apply", name, "--out", str(home / "out"), *place, code=1)
    there, local = (tune("apply", name, "--json", *where) for where in (place, here))
    assert there.replace(server.url, ModelStore.open().address) == local


def test_a_final_run_continues_after_ctrl_c(
    server: DashboardServer, shared_database: Database, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(shared_database, name)
    monkeypatch.setenv("TUNE_TOKEN", server.new_token())
    interrupt = partial(os.kill, os.getpid(), signal.SIGINT)
    with begun(shared_database, f"{name}:apply", interrupt):
        left = tune("apply", name, "--train", "--server", server.url, code=130)
    assert f"`tune apply {name}` shows it then" in " ".join(left.split())
    client = LocalClient(shared_database, "ada")
    assert client.studies.get(f"{name}:apply").state is StudyStatus.QUEUED


def stored(database: Database, name: str, home: Path) -> None:
    """Have a server store the model of a study."""
    submitted(database, name)
    final = LocalClient(database, "ada").submissions.apply(name)
    end_final_run(database, f"{name}:apply", final.trial, 0.3, saved_model(home))
    ModelKeeper(database).store_due()


@contextmanager
def begun(database: Database, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread once a command has had a final run queued."""

    def run() -> None:
        client = LocalClient(database, "ada")
        until_s = time.monotonic() + 30
        while not client.studies.names(name) and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(0.5)  # it follows the run
        act()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


def tune(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output
