"""Artifacts and checkpoints on S3: a real server of its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.jobs_and_events import Listener, make_job, make_launch
from tests.support.postgres_proxy import Proxy
from tests.support.s3_servers import BUCKET, make_bucket, s3_environment, s3_server
from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.snapshot import packed
from tunesvc.artifacts.trial_checkpoints import TrialCheckpoints
from tunesvc.artifacts.unpacking import unpacked
from tunesvc.errors import ArtifactMissing, ArtifactStoreError, ArtifactStoreUnavailable
from tunesvc.execution.attempt.stored_checkpoints import StoredCheckpoints
from tunesvc.execution.executor import Checkpointed, Finished, Lost
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.spec import Environment


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        make_bucket(patch, address)
        yield address


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.mark.slow
def test_content_is_kept_once_listed_and_deleted(url: str, tmp_path: Path) -> None:
    store = ArtifactStore.open(url)
    content = os.urandom(20 * 2**20)  # in parts
    (tmp_path / "a").write_bytes(content)
    artifact = store.put_file(tmp_path / "a")
    assert artifact.digest == hashlib.sha256(content).hexdigest()
    assert store.put([content]) == artifact
    assert [(found.key, found.bytes) for found in store.list()] == [(artifact.digest, len(content))]
    store.get(artifact.digest, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    store.delete(artifact.digest)
    store.delete(artifact.digest)
    assert not store.exists(artifact.digest)
    with pytest.raises(ArtifactMissing):
        store.get(artifact.digest, tmp_path / "c")


@pytest.mark.slow
def test_a_snapshot_travels_by_s3(url: str, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "train.py").write_text("x = 1\n")
    store = ArtifactStore.open(url)
    with packed(tmp_path / "study") as snapshot:
        store.put_file(snapshot.archive)
    folder = unpacked(ArtifactStore.open(url), snapshot.digest, tmp_path / "snapshots")
    assert (folder / "train.py").read_text() == "x = 1\n"


def test_checkpoints_live_on_s3(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "head").write_text("1")
    (folder / "base").write_bytes(bytes(1000))
    trial = TrialCheckpoints.open(url, 7)
    first = trial.put(folder, "attempt-1-step-1-1")
    (folder / "deep" / "head").write_text("2")
    second = trial.put(folder, "attempt-1-step-2-2", base=first)
    location = trial.location(second)
    assert location == f"{url}/7/attempt-1-step-2-2/state"
    trial.delete(["attempt-1-step-1-1"], ["attempt-1-step-1-1", "attempt-1-step-2-2"])
    elsewhere, name = TrialCheckpoints.of(location)
    assert elsewhere.names() == [name]
    assert (elsewhere.get(name, tmp_path / "back") / "deep" / "head").read_text() == "2"


@pytest.mark.slow
def test_what_is_wrong_with_a_store_is_said_without_its_secrets(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactStoreError, match="no-such-bucket") as caught:
        ArtifactStore.open("s3://no-such-bucket/x").put([b"x"])
    assert "planted-s3-secret" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ArtifactStoreUnavailable, match="127.0.0.1:9"):
        ArtifactStore.open(f"s3://{BUCKET}/x").find("0" * 64)


_LARGE = """
import json, resource, sys, time
from pathlib import Path
from tunesvc.artifacts.trial_checkpoints import TrialCheckpoints
url, file, back = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
TrialCheckpoints.open(url, 1).names()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
trial = TrialCheckpoints.open(url, 1)
trial.put(file, "attempt-1-step-1-1")
put_s = time.monotonic() - began
trial.get("attempt-1-step-1-1", back)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"before_mb": before / 1e3, "peak_mb": peak / 1e3, "put_s": put_s,
                  "get_s": time.monotonic() - began - put_s}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_checkpoint_of_one_gigabyte_passes_in_bounded_memory(
    server: str, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.pt"
    piece = os.urandom(2**20)
    with file.open("wb") as out:
        for number in range(1024):
            out.write(number.to_bytes(8, "big") + piece[8:])
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, url, str(file), str(tmp_path / "back")],
        env={**os.environ, **s3_environment(server)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "back" / "model.pt").stat().st_size == 2**30
    assert measured["peak_mb"] - measured["before_mb"] < 200, measured


_OBJECTIVE = """
import os, signal
from pathlib import Path
from tunesvc import Trial

def train(*, trial: Trial):
    if (restored := trial.restored()) is not None:
        return float((restored / "weights").read_text())
    folder = trial.directory / "state"
    folder.mkdir()
    (folder / "weights").write_text("0.25")
    trial.report(3, loss=0.5)
    trial.checkpoint(folder)
    while not Path(os.environ["GO"]).exists():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_checkpoint_on_s3_survives_its_worker(server: str, url: str, tmp_path: Path) -> None:
    """Fault 3, with a store of objects in place of a folder."""
    (tmp_path / "train.py").write_text(_OBJECTIVE)
    go = tmp_path / "go"
    job = make_job(
        tmp_path,
        checkpoint_root=url,
        entrypoint="train:train",
        environment=Environment(env={**s3_environment(server), "GO": str(go)}),
    )
    executor = RayExecutor(job)
    listener, first = Listener(executor), make_launch(0)
    executor.launch(first)
    listener.until(lambda heard: heard.has(first, Checkpointed))
    (saved,) = listener.payloads_of(first, Checkpointed)
    assert saved == Checkpointed(f"{url}/0/attempt-1-step-3-1/state", 3)
    go.touch()
    listener.until_ended(first)
    assert isinstance(listener.outcome(first), Lost)
    second = make_launch(0, attempt=2, checkpoint=saved.path)
    listener.run(second)
    assert listener.outcome(second) == Finished({"loss": 0.25})
    executor.close()


@pytest.mark.slow
def test_a_network_that_is_cut_in_an_upload_delays_the_checkpoint(
    server: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 53, between a worker and a real server."""
    address = urlsplit(server)
    assert address.hostname is not None
    assert address.port is not None
    content = os.urandom(40 * 2**20)
    (tmp_path / "model.pt").write_bytes(content)
    kept: list[str] = []
    notes: list[str] = []
    with Proxy.plain((address.hostname, address.port)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        checkpoints = StoredCheckpoints(
            url, 0, 1, directory=lambda: tmp_path / "scratch", note=notes.append
        )
        checkpoints.keep(tmp_path / "model.pt", 1, lambda location, _: kept.append(location))
        while proxy.accepted < 2:
            time.sleep(0.01)
        proxy.refuse()
        proxy.cut()
        while not notes:
            time.sleep(0.05)
        assert kept == []
        assert "waits on this machine's disk" in notes[0]
        proxy.accept()
        checkpoints.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert kept == [f"{url}/0/attempt-1-step-1-1/model.pt"]
    back = TrialCheckpoints.open(url, 0).get("attempt-1-step-1-1", tmp_path / "back")
    assert back.read_bytes() == content
