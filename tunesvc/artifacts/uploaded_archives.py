"""Unpacks what people upload from a browser: a zip file, or a tar, compressed or not.

Every limit counts the bytes that are written, not those that the archive claims to have.
"""

from __future__ import annotations

import gzip
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO, Final

from tunesvc.artifacts.snapshot_files import FILES_MAX
from tunesvc.artifacts.unpacking import require_inside_name, unpack
from tunesvc.errors import SnapshotError
from tunesvc.util.formatting import size as format_size

UPLOAD_BYTES_MAX: Final = 250 * 10**6
"""Limit of what is unpacked: the snapshot's, and what is ignored in the folder."""
_DIRECTORY_MAX = 1_000 * FILES_MAX
"""Limit of a zip file's list of files, which is read into memory."""
_PIECE = 2**20


def unpack_upload(archive: Path, folder: Path) -> None:
    """Unpack an archive into a new folder. Its kind is known by its content.

    Raises:
        SnapshotError: it is no archive, too large, or has names, links or kinds of files that are
            refused.
    """
    with archive.open("rb") as file:
        start = file.read(4)
    try:
        if start.startswith(b"PK"):
            _unpack_zip(archive, folder)
        elif start.startswith(b"\x1f\x8b"):
            unpack(_expanded(archive), folder, bytes_max=UPLOAD_BYTES_MAX)
        else:
            unpack(archive, folder, bytes_max=UPLOAD_BYTES_MAX)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise SnapshotError(f"the archive cannot be unpacked: {error}") from None


def _expanded(archive: Path) -> Path:
    """Return the tar that a gzip file has, beside it."""
    expanded = archive.with_suffix(".tar")
    with gzip.open(archive) as content, expanded.open("xb") as file:
        _copy(content, file, UPLOAD_BYTES_MAX)
    return expanded


def _unpack_zip(archive: Path, folder: Path) -> None:
    _require_small_directory(archive)
    folder.mkdir(parents=True)
    left = UPLOAD_BYTES_MAX
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if len(members) > FILES_MAX:
            raise SnapshotError(f"the archive has {len(members)} files; it may have {FILES_MAX}")
        for member in members:
            _require_harmless(member)
            path = folder / member.filename
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as content, path.open("xb") as file:
                left -= _copy(content, file, left)
            path.chmod(0o755 if member.external_attr >> 16 & 0o100 else 0o644)


def _require_small_directory(archive: Path) -> None:
    """Refuse a list of files that `zipfile` would read into memory, however large it is."""
    with archive.open("rb") as file:
        start = max(file.seek(0, 2) - 2**16 - 64, 0)
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 16:
        raise SnapshotError("the archive cannot be unpacked: it is not a whole zip file")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    if size > _DIRECTORY_MAX or tail[max(at - 20, 0) : at].startswith(b"PK\x06\x07"):
        raise SnapshotError(f"the archive has too many files; it may have {FILES_MAX}")


def _require_harmless(member: zipfile.ZipInfo) -> None:
    require_inside_name(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise SnapshotError(
            f"the archive has {member.filename!r}, which is no file or folder, but a link or a "
            "device: copy the file there, or send a tar, in which links may lead to its own files"
        )
    if member.flag_bits & 1:
        raise SnapshotError(f"the archive has {member.filename!r}, which needs a password")


def _copy(content: IO[bytes] | gzip.GzipFile, file: BinaryIO, most: int) -> int:
    """Copy a file, and return its size."""
    copied = 0
    while piece := content.read(_PIECE):
        copied += len(piece)
        if copied > most:
            raise SnapshotError(
                f"the archive has more than {format_size(UPLOAD_BYTES_MAX)} when it is unpacked: "
                "leave out what the study does not need, and read large data from a path or "
                "address that all workers reach"
            )
        file.write(piece)
    return copied
