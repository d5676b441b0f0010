"""Archives that people upload: nothing is written elsewhere, and no more than the limit."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from tunesvc.artifacts import uploaded_archives
from tunesvc.artifacts.uploaded_archives import unpack_upload
from tunesvc.errors import SnapshotError


def zipped(path: Path, files: dict[str, bytes], mode: int = 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


def tarred(path: Path, name: str, content: bytes, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path


def test_a_zip_a_tar_and_a_compressed_one_have_the_same_files(tmp_path: Path) -> None:
    archives = [
        zipped(tmp_path / "a", {"mine/train.py": b"x = 1\n"}),
        tarred(tmp_path / "b", "mine/train.py", b"x = 1\n", "w"),
        tarred(tmp_path / "c", "mine/train.py", b"x = 1\n"),
    ]
    for archive in archives:
        folder = tmp_path / f"of-{archive.name}"
        unpack_upload(archive, folder)
        assert (folder / "mine" / "train.py").read_bytes() == b"x = 1\n"


def test_what_may_be_executed_stays_so(tmp_path: Path) -> None:
    unpack_upload(zipped(tmp_path / "a", {"run.sh": b"echo\n"}, mode=0o755), tmp_path / "of")
    assert (tmp_path / "of" / "run.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("name", ["../out", "/srv/out", "a/../../out", "..\\out"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    for archive in (zipped(tmp_path / "a", {name: b""}), tarred(tmp_path / "b", name, b"")):
        with pytest.raises(SnapshotError, match="outside"):
            unpack_upload(archive, tmp_path / f"of-{archive.name}")
    assert not (tmp_path.parent / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", {"passwd": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(SnapshotError, match="no file or folder, but a link"):
        unpack_upload(archive, tmp_path / "of")


def test_a_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploaded_archives, "UPLOAD_BYTES_MAX", 3_000_000)
    zeros = bytes(2_000_000)
    several = zipped(tmp_path / "a", {"one": zeros, "two": zeros})
    one = tarred(tmp_path / "b", "one", zeros + zeros)
    plain = tmp_path / "c"
    plain.write_bytes(gzip.compress(zeros + zeros))
    for archive in (several, one, plain):
        assert archive.stat().st_size < 10_000
        with pytest.raises(SnapshotError, match="more than 3 MB"):
            unpack_upload(archive, tmp_path / f"of-{archive.name}")


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", {"one": bytes(2_000_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<I", 2_000_000), struct.pack("<I", 10)))
    with pytest.raises(SnapshotError, match="cannot be unpacked"):
        unpack_upload(archive, tmp_path / "of")


def test_a_list_of_files_that_would_fill_memory_is_not_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", {"one": b"1"})
    content = bytearray(archive.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<I", 10**9)
    archive.write_bytes(content)
    with pytest.raises(SnapshotError, match="too many files"):
        unpack_upload(archive, tmp_path / "of")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04 cut", b"\x1f\x8b cut", gzip.compress(b"no tar")],
    ids=["empty", "text", "cut zip", "cut gzip", "gzip of no tar"],  # gzip writes the time
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(SnapshotError):
        unpack_upload(tmp_path / "a", tmp_path / "of")
