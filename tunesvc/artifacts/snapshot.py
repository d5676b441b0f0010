"""A snapshot: the archive of a study's folder, the same bytes for the same files.

A tar without compression: sorted names, one time, no owners, and of the permissions only whether a
file may be executed.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from tunesvc.artifacts.artifact_store import measure
from tunesvc.artifacts.snapshot_files import BYTES_MAX, FolderEntry, list_entries
from tunesvc.errors import SnapshotError

_TIME: Final = 946_684_800
"""2000-01-01: the first one that every tool takes is 1980."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A packed folder."""

    digest: str
    """SHA-256 of the archive, in hexadecimal."""
    archive: Path
    bytes: int
    """Size of the archive."""
    files: int
    """Number of files and links in it."""


@contextmanager
def packed(folder: Path, *, bytes_max: int = BYTES_MAX) -> Iterator[Snapshot]:
    """Pack a folder into a temporary archive, which exists until the context ends.

    Raises:
        SnapshotError: see `list_entries`; or a file changed while it was read.
    """
    entries = list_entries(folder, bytes_max=bytes_max)
    with tempfile.TemporaryDirectory(prefix="tunesvc-snapshot-") as temporary:
        archive = Path(temporary) / "snapshot.tar"
        with archive.open("wb") as file:
            _write(entries, file)
        artifact = measure(archive)
        files = sum(not entry.is_folder for entry in entries)
        yield Snapshot(artifact.digest, archive, artifact.bytes, files)


def _write(entries: tuple[FolderEntry, ...], file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            try:
                _add(archive, entry)
            except OSError as error:
                raise SnapshotError(f"{entry.path} cannot be packed: {error}") from None


def _add(archive: tarfile.TarFile, entry: FolderEntry) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mtime = _TIME
    if entry.is_folder:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    elif entry.is_link:
        member.type, member.mode = tarfile.SYMTYPE, 0o777
        member.linkname = _target(entry)
        archive.addfile(member)
    else:
        with entry.path.open("rb") as content:
            member.mode = 0o755 if entry.status.st_mode & 0o100 else 0o644
            member.size = os.fstat(content.fileno()).st_size
            archive.addfile(member, content)


def _target(entry: FolderEntry) -> str:
    """Return where a link leads, as a path relative to the link."""
    depth = len(PurePosixPath(entry.name).parts)
    root = entry.path.parents[depth - 1]
    target = entry.path.resolve().relative_to(root.resolve())
    return Path(os.path.relpath(root / target, entry.path.parent)).as_posix()
