"""Snapshots: the same bytes for the same files, no secrets, and nothing outside of the folder."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.snapshot import packed
from tunesvc.artifacts.snapshot_files import list_entries
from tunesvc.artifacts.unpacking import unpack, unpacked
from tunesvc.errors import SnapshotError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write(folder / "train.py", "def train(x): return x\n")
    write(folder / "study.yaml", "name: one\n")
    write(folder / "lib" / "model.py", "layers = 3\n")
    write(folder / "run.sh", "echo\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(folder: Path) -> list[str]:
    return [entry.name for entry in list_entries(folder) if not entry.is_folder]


def test_the_same_files_have_the_same_digest(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    os.utime(copy / "train.py", (0, 0))
    (copy / "train.py").chmod(0o600)
    write(copy / "__pycache__" / "train.pyc")
    with packed(folder) as one, packed(copy) as other:
        assert one.digest == other.digest
        assert one.files == 4
    write(copy / "train.py", "def train(x): return -x\n")
    with packed(copy) as changed:
        assert changed.digest != one.digest


def test_a_snapshot_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / "latest").symlink_to("lib")
    (folder / "lib" / "same.py").symlink_to(folder / "lib" / "model.py")
    (folder / "logs").mkdir()
    with packed(folder) as snapshot:
        unpack(snapshot.archive, tmp_path / "there")
    there = tmp_path / "there"
    assert (there / "latest" / "same.py").read_text() == "layers = 3\n"
    assert (there / "lib" / "same.py").readlink() == Path("model.py")
    assert (there / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (there / "train.py").stat().st_mode & stat.S_IXUSR
    assert (there / "logs").is_dir()
    with packed(there) as again:
        assert again.digest == snapshot.digest


def test_what_no_study_needs_is_left_out(folder: Path) -> None:
    for name in (".git/config", "node_modules/a/b.js", ".venv/x", "checkpoints/1", "a/b.pyc"):
        write(folder / name)
    assert names(folder) == ["lib/model.py", "run.sh", "study.yaml", "train.py"]


def test_the_ignore_file_has_the_last_word(folder: Path) -> None:
    write(folder / ".tuneignore", "*.sh\n/lib/*\n!/lib/keep.py\n!checkpoints/\n")
    write(folder / "lib" / "keep.py")
    write(folder / "checkpoints" / "start.bin")
    expected = [".tuneignore", "checkpoints/start.bin", "lib/keep.py", "study.yaml", "train.py"]
    assert names(folder) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(".env", "conf/.env.prod", "id_rsa", "deploy/key.PEM", "credentials.json"),
        *(".aws/credentials", ".netrc", ".ssh/config", "my-service-account-1.json"),
    ],
)
def test_secrets_are_refused_with_the_remedy(folder: Path, name: str) -> None:
    write(folder / name)
    with pytest.raises(SnapshotError, match=r"may hold secrets.*\.tuneignore") as caught:
        list_entries(folder)
    assert name in str(caught.value)
    write(folder / ".tuneignore", f"{name}\n")
    assert name not in names(folder)
    write(folder / ".tuneignore", f"!{name}\n")
    assert name in names(folder)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "aws = 'AKIA" + "ABCDEFGHIJKLMNOP'",
        '{"token": "tune_token_' + "x" * 43 + '"}',
    ],
)
def test_a_file_that_holds_a_secret_is_refused(folder: Path, text: str) -> None:
    write(folder / "conf" / "notes.txt", f"first line\n{text}\n")
    with pytest.raises(
        SnapshotError, match=r"conf/notes\.txt would be sent.*may hold secrets"
    ) as c:
        list_entries(folder)
    assert text not in str(c.value)
    write(folder / ".tuneignore", "!conf/notes.txt\n")
    assert "conf/notes.txt" in names(folder)


def test_an_example_of_a_secret_is_none(folder: Path) -> None:
    write(folder / ".env.example")
    assert ".env.example" in names(folder)


def test_a_folder_that_is_too_large_names_its_largest_files(folder: Path) -> None:
    write(folder / "data.bin", "x" * 60_000)
    write(folder / "more.bin", "x" * 50_000)
    with pytest.raises(SnapshotError, match=r"data\.bin \(60 kB\), more\.bin \(50 kB\)"):
        list_entries(folder, bytes_max=100_000)


def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside.txt")
    (folder / "data").symlink_to("../outside.txt")
    with pytest.raises(SnapshotError, match=r"data links to .*outside\.txt.*copy it there"):
        list_entries(folder)


def test_a_link_to_what_is_left_out_is_refused(folder: Path) -> None:
    write(folder / "checkpoints" / "a.bin")
    (folder / "start").symlink_to("checkpoints/a.bin")
    with pytest.raises(SnapshotError, match="missing or left out"):
        list_entries(folder)


def test_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(SnapshotError, match="neither a file nor a folder"):
        list_entries(folder)


def test_names_in_any_language_and_of_any_length_are_kept(folder: Path, tmp_path: Path) -> None:
    long = "/".join(["ordner" * 10] * 4) + "/größe-模型.py"
    write(folder / long)
    with packed(folder) as snapshot:
        unpack(snapshot.archive, tmp_path / "there")
    assert (tmp_path / "there" / long).is_file()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


SYMLINK = tarfile.SYMTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../escaped")],
        [member("/escaped")],
        [member("a/../../escaped")],
        [member("a\\..\\escaped")],
        [member("link", SYMLINK, "../..")],
        [member("link", SYMLINK, "/etc")],
        [member("link", SYMLINK, "a"), member("link/file")],
        [
            member("d", tarfile.DIRTYPE),
            member("d/a", SYMLINK, ".."),
            member("a", SYMLINK, "d/a/.."),
        ],
        [member("loop", SYMLINK, "a/../loop")],
        [member("here", SYMLINK, "."), member("here/up", SYMLINK, "..")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("device", tarfile.CHRTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("twice"), member("twice")],
        [member("twice"), member("./twice")],
    ],
    ids=lambda members: "+".join(f"{one.name}>{one.linkname}" for one in members),
)
def test_a_hostile_archive_is_refused(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    """Fault 35."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b""))
    room = tmp_path / "room"
    with pytest.raises(SnapshotError):
        unpack(tmp_path / "a.tar", room / "folder")
    assert [path.name for path in room.iterdir()] == ["folder"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "room"]


def test_an_archive_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    huge = member("huge")
    huge.size = 10**13
    (tmp_path / "a.tar").write_bytes(huge.tobuf() + bytes(10_240))
    with pytest.raises(SnapshotError):
        unpack(tmp_path / "a.tar", tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SnapshotError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar", tmp_path / "folder")


def test_a_snapshot_is_unpacked_once_by_many_at_once(folder: Path, tmp_path: Path) -> None:
    store = ArtifactStore.open(str(tmp_path / "store"))
    with packed(folder) as snapshot:
        store.put_file(snapshot.archive)
    root = tmp_path / "snapshots"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: unpacked(store, snapshot.digest, root), range(16)))
    assert found == {root / snapshot.digest}
    assert [path.name for path in root.iterdir()] == [snapshot.digest]
    assert (root / snapshot.digest / "train.py").read_text() == "def train(x): return x\n"
    store.delete(snapshot.digest)
    unpacked(store, snapshot.digest, root)
