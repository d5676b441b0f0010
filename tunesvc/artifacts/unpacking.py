"""Unpacks snapshots, which may come from anybody: no file is written outside of the folder."""

from __future__ import annotations

import os
import secrets
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from tunesvc.artifacts.archive_links import links_problem
from tunesvc.artifacts.artifact_store import ArtifactStore, checked_digest
from tunesvc.artifacts.snapshot_files import FILES_MAX
from tunesvc.errors import SnapshotError

_BYTES_MAX = 2 * 10**9
"""Limit of all files together: an archive may claim more than it has, with holes."""


def unpacked(store: ArtifactStore, digest: str, root: Path) -> Path:
    """Return the folder of a snapshot below `root`, unpacked by the first call.

    Any number of processes may ask for it at once. A crash leaves a folder that ends in
    `.partial`, and never an incomplete one under the snapshot's name.

    Raises:
        ArtifactMissing: the store has no snapshot of that digest.
        ArtifactDamaged, ArtifactStoreUnavailable: see `ArtifactStore.get`.
        SnapshotError: it is no archive, or one that no `tune submit` has made.
    """
    folder = root / checked_digest(digest)
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f"{digest}.{secrets.token_hex(4)}.partial"
    archive = partial.with_suffix(".tar")
    try:
        store.get(digest, archive)
        unpack(archive, partial)
        _publish(partial, folder)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def unpack(archive: Path, folder: Path, *, bytes_max: int = _BYTES_MAX) -> None:
    """Unpack an archive into a new folder.

    Raises:
        SnapshotError: it is no archive, or has names, links or kinds of files that are refused.
    """
    folder.mkdir(parents=True)
    try:
        with tarfile.open(archive, mode="r:") as opened:
            members = _checked(opened, bytes_max)
            for member in members:
                if not member.issym():
                    _write(opened, member, folder / member.name)
            # Last, so that nothing is written through one.
            for member in members:
                if member.issym():
                    _link(member, folder / member.name)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise SnapshotError(f"the snapshot cannot be unpacked: {error}") from None


def _checked(archive: tarfile.TarFile, bytes_max: int) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    size = 0
    for member in archive:
        _require_harmless(member)
        members.append(member)
        size += member.size
        if len(members) > FILES_MAX or size > bytes_max:
            raise SnapshotError("the snapshot has too many files, or too large ones")
    if len({PurePosixPath(member.name) for member in members}) < len(members):
        raise SnapshotError("the snapshot has two files of one name")
    if (problem := links_problem(members)) is not None:
        raise SnapshotError(f"the snapshot has {problem}")
    return members


def require_inside_name(text: str) -> None:
    """Refuse the name of a file that would lie outside of the folder.

    Raises:
        SnapshotError: it would.
    """
    name = PurePosixPath(text)
    if name.is_absolute() or ".." in name.parts or "\\" in text or "\0" in text:
        raise SnapshotError(f"the snapshot has {text!r}, which would lie outside of it")


def _require_harmless(member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir() or member.issym()):
        raise SnapshotError(f"the snapshot has {member.name!r}, which is no file, folder or link")
    require_inside_name(member.name)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    if content is None:
        raise SnapshotError(f"the snapshot has {member.name!r} without content")
    with content, path.open("xb") as file:
        shutil.copyfileobj(content, file, 2**20)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (member.mtime, member.mtime))


def _link(member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(member.linkname)


def _publish(partial: Path, folder: Path) -> None:
    """Give an unpacked folder its name, unless another process was first."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
