"""Checkpoints that reach the server from elsewhere: the same in a folder and in an object store."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tunesvc.execution.agents.checkpoint_archive import pack, unpack_into
from tunesvc.execution.agents.uploaded_checkpoints import UploadedCheckpoints


@pytest.fixture(params=["folder", "store"])
def uploaded(request: pytest.FixtureRequest, tmp_path: Path) -> UploadedCheckpoints:
    root = tmp_path / "kept"
    return UploadedCheckpoints(
        str(root) if request.param == "folder" else f"file://{root}", trial_number=3
    )


def test_an_archive_comes_back_as_it_was(uploaded: UploadedCheckpoints, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text("1")
    location = uploaded.put_archive("attempt-1-step-4-1", pack(folder))
    assert location.endswith("/3/attempt-1-step-4-1/state")
    assert uploaded.contains(location)
    found = UploadedCheckpoints.of(location).find(location)
    assert found is not None
    assert (found.checkpoint, found.name, found.size, found.content) == (
        "attempt-1-step-4-1",
        "state",
        1,
        None,
    )
    back = unpack_into(found.archive(), tmp_path / "back")
    assert (back / "deep" / "weights").read_text() == "1"


def test_a_file_is_stored_under_its_name(uploaded: UploadedCheckpoints) -> None:
    first = uploaded.put_file("attempt-2-start-1", "model.pt", [b"we", b"ights"])
    assert uploaded.count(2) == 1
    assert uploaded.count(1) == 0
    uploaded.put_file("attempt-2-step-0-2", "model.pt", io.BytesIO(b"later"))
    listed = list(uploaded.list())
    assert [one.checkpoint for one in listed] == ["attempt-2-start-1", "attempt-2-step-0-2"]
    assert listed[0].location == first
    assert listed[0].content is not None
    assert b"".join(listed[0].content()) == b"weights"


def test_what_is_elsewhere_is_none_of_its(uploaded: UploadedCheckpoints, tmp_path: Path) -> None:
    location = uploaded.put_file("attempt-1-start-1", "model.pt", [b"x"])
    other = location.replace("/3/", "/4/")
    for foreign in (other, location.replace("/3/", "/3/../4/"), "/etc/passwd", "s3://b/3/a/b"):
        assert not uploaded.contains(foreign)
    assert uploaded.find(location.replace("start-1", "start-9")) is None
