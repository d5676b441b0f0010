"""The checkpoints of one trial on the server's side: in a folder, or in an object store."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import CHUNK_BYTES, pack, unpack
from tunesvc.artifacts.trial_checkpoints import TrialCheckpoints
from tunesvc.execution.attempt.checkpoints import checkpoint_files, parse_checkpoint
from tunesvc.util.paths import is_file_name, is_url


@dataclass(frozen=True, slots=True)
class UploadedCheckpoint:
    """A checkpoint that can be sent."""

    checkpoint: str
    """Such as `attempt-2-step-9-1`."""
    name: str
    """The file's or folder's own name."""
    location: str
    size: int
    """Bytes of all its files."""
    archive: Callable[[], Iterator[bytes]]
    """Yields a tar of it."""
    content: Callable[[], Iterator[bytes]] | None
    """Yields the content of a file; None for a folder."""


class UploadedCheckpoints:
    """Stores and finds a trial's checkpoints."""

    def __init__(self, root: str, trial_number: int) -> None:
        """Use those below the folder or address of the study's checkpoints."""
        self._root, self._trial = root, trial_number

    def put_archive(self, checkpoint: str, chunks: Iterable[bytes]) -> str:
        """Store the file or folder of an archive; return its location.

        Raises:
            OSError: the archive is no checkpoint, or the disk is full.
            ArtifactStoreError: the store does not take it.
        """
        if not self._is_stored:
            return str(unpack(chunks, self._folder / checkpoint))
        with tempfile.TemporaryDirectory(prefix="tunesvc-") as folder:
            return self._put(unpack(chunks, Path(folder) / checkpoint), checkpoint)

    def put_file(self, checkpoint: str, name: str, chunks: Iterable[bytes]) -> str:
        """Store a file; return its location.

        Raises:
            OSError: the disk is full.
            ArtifactStoreError: the store does not take it.
        """
        if self._is_stored:
            with tempfile.TemporaryDirectory(prefix="tunesvc-") as folder:
                return self._put(_write(Path(folder) / name, chunks), checkpoint)
        partial = self._folder / f"{checkpoint}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        _write(partial / name, chunks)
        return str(partial.rename(self._folder / checkpoint) / name)

    def count(self, attempt: int) -> int:
        """Return the number of checkpoints that an attempt has."""
        pattern = re.compile(rf"attempt-{attempt}-[^.]*")
        names = self._store().names() if self._is_stored else _names(self._folder)
        return sum(pattern.fullmatch(name) is not None for name in names)

    def contains(self, location: str) -> bool:
        """Return True if a location is that of one of this trial's checkpoints."""
        own = f"{self._root}/{self._trial}/" if self._is_stored else f"{self._folder}/"
        checkpoint, _, name = location.removeprefix(own).partition("/")
        is_checkpoint = parse_checkpoint(Path(checkpoint) / "content") is not None
        return location.startswith(own) and is_checkpoint and is_file_name(name)

    def find(self, location: str) -> UploadedCheckpoint | None:
        """Return the checkpoint at a location; None if it is gone."""
        if not self._is_stored:
            path = Path(location)
            return _found(path) if path.exists() and self._is_inside(path) else None
        store, checkpoint = TrialCheckpoints.of(location)
        return _stored(store, checkpoint) if checkpoint in store.names() else None

    def list(self) -> Iterator[UploadedCheckpoint]:
        """Yield all complete checkpoints, oldest first."""
        if not self._is_stored:
            paths = [file.path for file in checkpoint_files(self._folder)]
            yield from (_found(path) for path in paths if self._is_inside(path))
            return
        store = self._store()
        files = [parse_checkpoint(Path(name) / "content") for name in store.names()]
        for file in sorted(file for file in files if file is not None):
            yield _stored(store, file.path.parent.name)

    @classmethod
    def of(cls, location: str) -> UploadedCheckpoints:
        """Return the checkpoints of the trial of one."""
        root, trial, _, _ = location.rsplit("/", 3)
        return cls(root, int(trial))

    @property
    def _is_stored(self) -> bool:
        return is_url(self._root)

    @property
    def _folder(self) -> Path:
        return Path(self._root).resolve() / str(self._trial)

    def _is_inside(self, path: Path) -> bool:
        """Return False for what a link leads to, such as a file that only the server may read."""
        return path.resolve().is_relative_to(self._folder)

    def _store(self) -> TrialCheckpoints:
        return TrialCheckpoints.open(self._root, self._trial)

    def _put(self, path: Path, checkpoint: str) -> str:
        store = self._store()
        return store.location(store.put(path, checkpoint))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("attempt-*") if path.is_dir()]


def _stored(store: TrialCheckpoints, checkpoint: str) -> UploadedCheckpoint:
    manifest = store.find(checkpoint)
    return UploadedCheckpoint(
        checkpoint,
        manifest.name,
        store.location(manifest),
        manifest.size,
        lambda: store.archive(checkpoint),
        None if manifest.is_folder else (lambda: store.read(manifest.parts[0])),
    )


def _found(path: Path) -> UploadedCheckpoint:
    files = path.rglob("*") if path.is_dir() else [path]
    return UploadedCheckpoint(
        path.parent.name,
        path.name,
        str(path),
        sum(file.stat().st_size for file in files if file.is_file()),
        lambda: pack(path),
        (lambda: _read(path)) if path.is_file() else None,
    )


def _write(path: Path, chunks: Iterable[bytes]) -> Path:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return path


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
