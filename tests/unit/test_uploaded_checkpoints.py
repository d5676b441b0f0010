"""Checkpoints that reach the server from elsewhere: the same in a folder and in an object store."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tunesvc.artifacts.checkpoint_archive import pack, unpack_into
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
    folder = location.rpartition("/")[0]
    for foreign in (
        *(other, location.replace("/3/", "/3/../4/"), "/etc/passwd", "s3://b/3/a/b"),
        *(folder, f"{folder}/", f"{folder}/..", f"{folder}/a/b", f"{folder}/a\0b"),
        *(folder.rpartition("/")[0], location.replace("/attempt", "/none"), ""),
    ):
        assert not uploaded.contains(foreign), foreign
    assert uploaded.find(location.replace("start-1", "start-9")) is None


def member(name: str, kind: bytes = tarfile.DIRTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o755
    return made


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped")],
        [member("a", SYMLINK, "/etc/passwd")],
        [member("c"), member("c/a", SYMLINK, "../../../escaped")],
        [member("c"), member("c/here", SYMLINK, "."), member("c/here/up", SYMLINK, "../../..")],
        [
            member("c"),
            member("c/d"),
            member("c/d/a", SYMLINK, ".."),
            member("c/b", SYMLINK, "d/a/.."),
        ],
        [member("c"), member("c/link", SYMLINK, "d"), member("c/link/file", tarfile.REGTYPE)],
        [member("c", HARDLINK, "/etc/passwd")],
        [member("c", HARDLINK, "../../../escaped")],
        [member("c", tarfile.CHRTYPE)],
        [member("one"), member("two")],
        [member("a\udcffb")],
    ],
    ids=lambda members: ascii("+".join(f"{one.name}>{one.linkname}" for one in members)),
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    uploaded: UploadedCheckpoints, members: list[tarfile.TarInfo], tmp_path: Path
) -> None:
    """Fault 35, in what an agent uploads."""
    (tmp_path / "escaped").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for one in members:
            archive.addfile(one)
    with pytest.raises(OSError, match=".+"):
        uploaded.put_archive("attempt-1-start-1", [buffer.getvalue()])
    assert list(uploaded.list()) == []
    assert list((tmp_path / "escaped").iterdir()) == []
    assert not list(tmp_path.rglob("*passwd*"))


def test_links_within_a_checkpoint_are_kept(uploaded: UploadedCheckpoints, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / "one").mkdir(parents=True)
    (folder / "blobs" / "weights").write_text("1")
    (folder / "snapshots" / "one" / "model").symlink_to("../../blobs/weights")
    location = uploaded.put_archive("attempt-1-start-1", pack(folder))
    found = uploaded.find(location)
    assert found is not None
    back = unpack_into(found.archive(), tmp_path / "back")
    assert (back / "snapshots" / "one" / "model").read_text() == "1"


@pytest.mark.parametrize("planted", ["folder", "file"])
def test_no_link_on_a_shared_disk_shows_what_only_the_server_may_read(
    planted: str, tmp_path: Path
) -> None:
    """Fault 35: an objective may write whatever it likes where its checkpoints are."""
    secret = tmp_path / "server" / "environ"
    secret.parent.mkdir()
    secret.write_text("TUNE_DATABASE_URL=secret")
    uploaded = UploadedCheckpoints(str(tmp_path / "kept"), 3)
    location = Path(uploaded.put_file("attempt-1-start-1", "environ", [b"mine"]))
    location.unlink()
    if planted == "file":
        location.symlink_to(secret)
    else:
        location.parent.rmdir()
        location.parent.symlink_to(secret.parent)
    assert location.read_text() == secret.read_text()
    assert list(uploaded.list()) == []
    assert uploaded.find(str(location)) is None
