"""Artifacts: equal content once, whole or not at all, and never another content than was put."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.broken_stores import broken_store
from tunesvc.artifacts.artifact_store import Artifact, ArtifactStore, pieces_of
from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactMissing,
    ArtifactStoreError,
    ArtifactStoreUnavailable,
    ArtifactTooLarge,
)

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path / "store"))


def files(tmp_path: Path) -> list[str]:
    root = tmp_path / "store"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_content_comes_back_as_it_was_put(store: ArtifactStore, tmp_path: Path) -> None:
    assert store.put([CONTENT[:10], CONTENT[10:]]) == Artifact(DIGEST, len(CONTENT))
    store.get(DIGEST, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert files(tmp_path) == [f"sha256/{DIGEST[:2]}/{DIGEST}"]


def test_equal_content_is_kept_once(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: store.put([CONTENT]), range(16)))
        list(threads.map(lambda _: store.put_file(tmp_path / "a"), range(16)))
    assert [found.key for found in store.list()] == [DIGEST]
    assert files(tmp_path) == [f"sha256/{DIGEST[:2]}/{DIGEST}"]


def test_a_file_that_is_stored_is_not_uploaded_again(tmp_path: Path) -> None:
    objects, filesystem = broken_store(tmp_path / "store")
    (tmp_path / "a").write_bytes(CONTENT)
    store = ArtifactStore(objects)
    store.put_file(tmp_path / "a")
    store.put_file(tmp_path / "a")
    assert len(filesystem.written) == 1
    os.utime(tmp_path / "store" / "sha256" / DIGEST[:2] / DIGEST, (0, 0))
    store.put_file(tmp_path / "a", fresh=timedelta(hours=1))
    assert len(filesystem.written) == 2


def test_content_of_another_digest_is_refused_and_leaves_nothing(
    store: ArtifactStore, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactDamaged, match="send it again"):
        store.put([b"other"], digest=DIGEST)
    assert files(tmp_path) == []


def test_content_beyond_the_cap_is_refused_before_it_is_read_to_its_end(
    store: ArtifactStore, tmp_path: Path
) -> None:
    read: list[int] = []

    def endless():
        while True:
            read.append(1)
            yield bytes(1000)

    with pytest.raises(ArtifactTooLarge):
        store.put(endless(), bytes_max=10_000)
    assert len(read) == 11
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "fault", ["drops the end", "flips a bit", "writes nothing", "copies nothing"]
)
def test_a_store_that_lies_about_success_is_found_out(fault: str, tmp_path: Path) -> None:
    """Fault 56."""
    objects, filesystem = broken_store(tmp_path / "store")
    store = ArtifactStore(objects)
    filesystem.fault = fault
    with pytest.raises(ArtifactDamaged, match="reported success"):
        store.put([CONTENT])
    filesystem.fault = ""
    assert not store.exists(DIGEST)
    assert store.put([CONTENT]).digest == DIGEST


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("away", ArtifactStoreUnavailable),
        ("full", ArtifactStoreUnavailable),
        ("forbidden", ArtifactStoreError),
    ],
)
def test_a_store_that_fails_is_an_error_with_a_remedy(
    fault: str, error: type[Exception], tmp_path: Path
) -> None:
    objects, filesystem = broken_store(tmp_path / "store")
    store = ArtifactStore(objects)
    filesystem.fault = fault
    with pytest.raises(error, match=r"fake://store.*credentials"):
        store.put([CONTENT])
    filesystem.fault = ""
    assert list(store.list()) == []


def test_a_damaged_artifact_is_never_handed_out(store: ArtifactStore, tmp_path: Path) -> None:
    store.put([CONTENT])
    (tmp_path / "store" / "sha256" / DIGEST[:2] / DIGEST).write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ArtifactDamaged, match="is damaged"):
        store.get(DIGEST, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_truncated_artifact_is_stored_again(store: ArtifactStore, tmp_path: Path) -> None:
    store.put([CONTENT])
    (tmp_path / "store" / "sha256" / DIGEST[:2] / DIGEST).write_bytes(b"")
    store.put([CONTENT])
    store.get(DIGEST, tmp_path / "copy")


def test_what_is_missing_is_named(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=DIGEST):
        store.get(DIGEST, tmp_path / "copy")
    with pytest.raises(ArtifactMissing, match="is no digest"):
        store.find("../../etc/passwd")
    store.delete(DIGEST)


def test_unfinished_uploads_are_removed_when_they_are_old(
    store: ArtifactStore, tmp_path: Path
) -> None:
    objects = ObjectStore.open(str(tmp_path / "store"))
    for name in ("uploads/old", "uploads/young"):
        objects.write(name, [b"part"])
    os.utime(tmp_path / "store" / "uploads" / "old", (0, 0))
    assert store.clean() == 1
    assert files(tmp_path) == ["uploads/young"]


def test_a_large_file_passes_in_pieces() -> None:
    pieces = list(pieces_of(io.BytesIO(bytes(9 * 2**20))))
    assert [len(piece) >> 20 for piece in pieces] == [4, 4, 1]


@pytest.mark.parametrize(
    "address", ["s3://key:planted-secret@bucket/x", "az://container/x?sig=planted-secret"]
)
def test_an_address_with_a_password_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ArtifactStoreError, match="holds a password") as caught:
        ArtifactStore.open(address)
    assert "planted-secret" not in str(caught.value)


def test_an_unknown_scheme_names_those_that_there_are() -> None:
    with pytest.raises(ArtifactStoreError, match="s3:, gs:, az:"):
        ArtifactStore.open("ftp://host/x")


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArtifactStoreError, match=r"pip install 'tunesvc\[gcs\]'"):
        ArtifactStore.open("gs://bucket")
