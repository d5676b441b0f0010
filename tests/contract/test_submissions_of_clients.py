"""One suite for submitting through both clients: on the database, and through a server's API."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.snapshot import Snapshot, packed
from tunesvc.client.interface import TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.remote.http_client import Client
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import Priority
from tunesvc.errors import ArtifactDamaged, SpecError, StudyExists, StudyNotFound, TuneError
from tunesvc.execution.attempt.checkpoints import Checkpoints
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.web import DashboardServer


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        url = str(tmp_path_factory.mktemp("store"))
        patch.setenv("TUNE_ARTIFACTS", url)
        yield url


@pytest.fixture(scope="module")
def server(shared_database: Database, store_url: str) -> Iterator[DashboardServer]:
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
def snapshot(tmp_path: Path) -> Iterator[Snapshot]:
    """A snapshot that no other test has."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "train.py").write_text(f"def train(x): return x  # {os.urandom(8).hex()}\n")
    (folder / "data.bin").write_bytes(bytes(3_000_000))
    with packed(folder) as snapshot:
        yield snapshot


def unique(**changes: object) -> NewSubmission:
    return NewSubmission(make_spec(name=os.urandom(8).hex(), seed=3, **changes))


def test_a_snapshot_is_stored_once(client: TuneClient, snapshot: Snapshot, store_url: str) -> None:
    assert not client.submissions.has_snapshot(snapshot.digest)
    client.submissions.put_snapshot(snapshot)
    client.submissions.put_snapshot(snapshot)
    assert client.submissions.has_snapshot(snapshot.digest)
    stored = list(ArtifactStore.open(store_url).list())
    assert [found.bytes for found in stored if found.key == snapshot.digest] == [snapshot.bytes]


def test_a_study_is_queued_as_it_was_sent(client: TuneClient, snapshot: Snapshot) -> None:
    client.submissions.put_snapshot(snapshot)
    sent = NewSubmission(unique().spec, "name: x # ü\n", snapshot.digest, priority=Priority.URGENT)
    view = client.submissions.submit(sent)
    assert view.state == "queued"
    assert view.submission is not None
    assert view.submission.priority == Priority.URGENT
    assert view.submission.snapshot == snapshot.digest
    assert (view.spec, view.source_text) == (sent.spec, sent.source_text)
    assert client.studies.get(view.name).study_id == view.study_id


def test_errors_of_submitting_are_the_same(
    client: TuneClient, shared_database: Database, tmp_path: Path
) -> None:
    taken = unique()
    client.submissions.submit(taken)
    (tmp_path / "other").write_bytes(b"x")
    digest = hashlib.sha256(b"y").hexdigest()
    cases = [
        (StudyExists, lambda one: one.submissions.submit(taken)),
        (TuneError, lambda one: one.submissions.submit(unique_with_snapshot(digest))),
        (SpecError, lambda one: one.submissions.submit(unique(entrypoint=None))),
        (
            ArtifactDamaged,
            lambda one: one.submissions.put_snapshot(Snapshot(digest, tmp_path / "other", 1, 1)),
        ),
    ]
    for error, call in cases:
        raised = []
        for one in (client, LocalClient(shared_database, "ada")):
            with pytest.raises(error) as caught:
                call(one)
            raised.append(caught.value)
        assert type(raised[0]) is type(raised[1])
        if error is not SpecError:  # it names the study
            assert str(raised[0]) == str(raised[1])


def unique_with_snapshot(digest: str) -> NewSubmission:
    return NewSubmission(make_spec(name="without a snapshot"), snapshot=digest)


def test_an_upload_beyond_the_cap_is_refused(server: DashboardServer) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.putrequest("PUT", f"/api/v1/snapshots/{'0' * 64}")
    connection.putheader("Authorization", f"Bearer {server.new_token()}")
    connection.putheader("Content-Length", "121000000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_study_is_created_from_the_text_of_a_file(server: DashboardServer) -> None:
    text = "name: {}\ncommand: [echo, '{{x}}']\nmetric: loss\nparameters: {{x: {{type: float, min: 0, max: 1}}}}\nbudget: {{trials: 3}}\n"
    headers = {"Authorization": f"Bearer {server.new_token()}"}
    address = f"{server.url}/api/v1/submissions"
    body = {"source_text": text.format("from-text"), "priority": "low"}
    answer = httpx.post(address, headers=headers, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["submission"]["priority"] == "low"
    wrong = httpx.post(address, headers=headers, json={"source_text": "name: a\n"})
    assert wrong.status_code == 422
    assert "study.yaml" in wrong.json()["detail"]


def test_checkpoints_are_listed_and_copied(
    client: TuneClient, shared_database: Database, tmp_path: Path
) -> None:
    """From a folder that the server has; `test_stored_checkpoints` has those of an object store."""
    name, _, saved = with_a_checkpoint(shared_database, tmp_path)
    (kept,) = client.trials.checkpoints(name)
    assert client.trials.checkpoints(name, 1) == (kept,)
    assert client.trials.checkpoints(name, 0) == ()
    assert (kept.trial_number, kept.step, kept.path, kept.bytes) == (1, 2, str(saved), 7)
    folder = tmp_path / type(client).__name__
    copy = client.trials.fetch_checkpoint(name, 1, kept.checkpoint, folder)
    assert copy == folder / "model.pt"
    assert copy.read_text() == "weights"
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
    with pytest.raises(TuneError, match="is there already"):
        client.trials.fetch_checkpoint(name, 1, kept.checkpoint, folder)
    with pytest.raises(StudyNotFound, match="has no checkpoint 'attempt-9-start-1'"):
        client.trials.fetch_checkpoint(name, 1, "attempt-9-start-1", folder)
    with pytest.raises(StudyNotFound):
        client.trials.checkpoints(name, 9)


def test_a_page_lists_checkpoints_and_offers_them(
    server: DashboardServer, shared_database: Database, tmp_path: Path
) -> None:
    _, study, _ = with_a_checkpoint(shared_database, tmp_path)
    headers = {"Authorization": f"Bearer {server.new_token()}"}
    address = f"{server.url}/studies/{study}/trials/1/checkpoints"
    listed = httpx.get(address, headers=headers)
    assert "attempt-1-step-2-1" in listed.text
    assert "7 bytes" in listed.text
    answer = httpx.get(f"{address}/attempt-1-step-2-1", headers=headers)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == ["model.pt"]
    assert httpx.get(f"{address}/..%2F..%2Fetc", headers=headers).status_code == 404
    assert httpx.get(address).status_code == 401


def with_a_checkpoint(database: Database, folder: Path) -> tuple[str, int, Path]:
    """A study's name and id; its trial 1 has saved this path."""
    name = os.urandom(8).hex()
    study = fill(database, 3, running=0, name=name)
    (folder / "model.pt").write_text("weights")
    saved = Checkpoints(folder / "kept", 1, 1).save(folder / "model.pt", 2)
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE attempts SET checkpoint = :path WHERE trial_id = :trial"),
            {"path": str(saved), "trial": trial_id(study, 1)},
        )
    return name, study, saved
