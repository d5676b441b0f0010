"""The checkpoints of one trial in an object store.

    <trial>/attempt-2-step-9-1.json           a manifest: publishes the checkpoint as a whole
    <trial>/attempt-2-step-9-1/sha256/ab/...  content that this checkpoint brought

A manifest names its files by digest, in its own place or in that of the checkpoint before, so that
a file that stays the same is kept once. One attempt writes at a time, and bases a checkpoint on the
newest one, of which nothing is deleted before a newer one is recorded. So no upload relies on
content that is deleted meanwhile, without any lock.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tunesvc.artifacts.artifact_store import Artifact, ArtifactStore, measure
from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.errors import ArtifactDamaged

_END = ".json"


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """A file of a checkpoint."""

    path: str
    """Below the checkpoint; empty for a checkpoint that is one file."""
    artifact: Artifact
    place: str
    """Checkpoint that brought its content."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete checkpoint."""

    checkpoint: str
    """Such as `attempt-2-step-9-1`."""
    name: str
    """The file's or folder's own name."""
    parts: tuple[CheckpointPart, ...]
    folders: tuple[str, ...] = ()
    """Folders in it, empty ones too."""
    value: float | None = None
    """Value that the trial reported at its step."""

    @property
    def is_folder(self) -> bool:
        """True if it is a folder, not a file."""
        return not (len(self.parts) == 1 and self.parts[0].path == "")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.artifact.bytes for part in self.parts)

    def dump(self) -> bytes:
        """Return it as JSON."""
        parts = [
            {
                "path": part.path,
                "digest": part.artifact.digest,
                "bytes": part.artifact.bytes,
                "place": part.place,
            }
            for part in self.parts
        ]
        value = {"name": self.name, "parts": parts, "folders": self.folders, "value": self.value}
        return json.dumps(value).encode()

    @classmethod
    def load(cls, checkpoint: str, text: bytes) -> Manifest:
        """Read one.

        Raises:
            ArtifactDamaged: it is none.
        """
        try:
            read: Mapping[str, Any] = json.loads(text)
            parts = tuple(
                CheckpointPart(
                    part["path"], Artifact(part["digest"], int(part["bytes"])), part["place"]
                )
                for part in read["parts"]
            )
            made = cls(checkpoint, read["name"], parts, tuple(read["folders"]), read["value"])
        except (ValueError, KeyError, TypeError):
            raise ArtifactDamaged(f"the manifest of checkpoint {checkpoint} is damaged") from None
        inside = (made.name, *made.folders, *(part.path for part in made.parts))
        if any(_leads_out(path) for path in inside) or not made.name:
            raise ArtifactDamaged(
                f"the manifest of checkpoint {checkpoint} leads out of its folder"
            )
        return made


class TrialCheckpoints:
    """The checkpoints of one trial. One process writes at a time; any may read."""

    def __init__(self, objects: ObjectStore) -> None:
        """Use the objects of one trial."""
        self._objects = objects

    @classmethod
    def open(cls, root: str, trial_number: int) -> TrialCheckpoints:
        """Return a trial's checkpoints below the address of its study's."""
        return cls(ObjectStore.open(root).below(str(trial_number)))

    @classmethod
    def of(cls, location: str) -> tuple[TrialCheckpoints, str]:
        """Return the trial's checkpoints and the name of the one at a location.

        Raises:
            ArtifactStoreError: its library is not installed.
        """
        folder, checkpoint, _ = location.rsplit("/", 2)
        return cls(ObjectStore.open(folder)), checkpoint

    def put(
        self,
        path: Path,
        checkpoint: str,
        *,
        value: float | None = None,
        base: Manifest | None = None,
    ) -> Manifest:
        """Store a file or folder. It is there as a whole, or not at all; may be repeated.

        Args:
            path: the file or folder, which has no links in it.
            checkpoint: name of the checkpoint.
            value: value that was reported at its step.
            base: the newest checkpoint: files that are equal to one of it are not stored again.
        """
        known = {} if base is None else {part.artifact: part.place for part in base.parts}
        store = self._store(checkpoint)
        parts = []
        for file in [path] if path.is_file() else _files(path):
            artifact = measure(file)
            place = known.get(artifact)
            if place is None:
                store.put_file(file)
                place = known[artifact] = checkpoint
            inside = "" if file == path else file.relative_to(path).as_posix()
            parts.append(CheckpointPart(inside, artifact, place))
        folders = sorted(
            one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_dir()
        )
        manifest = Manifest(checkpoint, path.name, tuple(parts), tuple(folders), value)
        self._objects.publish(checkpoint + _END, manifest.dump())
        return manifest

    def location(self, manifest: Manifest) -> str:
        """Return the address that names a checkpoint in rows and events."""
        return f"{self._objects.url}/{manifest.checkpoint}/{manifest.name}"

    def find(self, checkpoint: str) -> Manifest:
        """Return a checkpoint.

        Raises:
            ArtifactMissing: there is none of that name.
        """
        return Manifest.load(checkpoint, b"".join(self._objects.read(checkpoint + _END)))

    def names(self) -> list[str]:
        """Return the names of all complete checkpoints."""
        return [
            found.key.removesuffix(_END)
            for found in self._objects.list()
            if "/" not in found.key and found.key.endswith(_END)
        ]

    def get(self, checkpoint: str, folder: Path) -> Path:
        """Write a checkpoint's file or folder below `folder`, and return its path.

        Raises:
            ArtifactMissing, ArtifactDamaged: it is not there as it was put.
        """
        manifest = self.find(checkpoint)
        path = folder / manifest.name
        if manifest.is_folder:
            path.mkdir(parents=True)
        for name in manifest.folders:
            (path / name).mkdir(parents=True, exist_ok=True)
        for part in manifest.parts:
            file = path / part.path if part.path else path
            file.parent.mkdir(parents=True, exist_ok=True)
            self._store(part.place).get(part.artifact.digest, file)
        return path

    def read(self, part: CheckpointPart) -> Iterator[bytes]:
        """Yield the content of a file of a checkpoint."""
        return self._store(part.place).read(part.artifact.digest)

    def archive(self, checkpoint: str) -> Iterator[bytes]:
        """Yield a tar of a checkpoint's file or folder, in pieces.

        Raises:
            ArtifactMissing, ArtifactDamaged: it is not there as it was put.
        """
        manifest = self.find(checkpoint)
        folders = [manifest.name, *(f"{manifest.name}/{one}" for one in manifest.folders)]
        for name in folders if manifest.is_folder else []:
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            yield member.tobuf()
        for part in manifest.parts:
            member = tarfile.TarInfo(f"{manifest.name}/{part.path}" if part.path else manifest.name)
            member.size = part.artifact.bytes
            yield member.tobuf()
            yield from self.read(part)
            yield bytes(-member.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def stale(self, before: datetime) -> set[str]:
        """Return the checkpoints, complete or not, of which nothing was written since `before`."""
        newest: dict[str, datetime] = {}
        for found in self._objects.list():
            checkpoint = found.key.partition("/")[0].removesuffix(_END)
            newest[checkpoint] = max(found.modified, newest.get(checkpoint, found.modified))
        return {checkpoint for checkpoint, modified in newest.items() if modified < before}

    def delete(self, checkpoints: Iterable[str], older_than: Iterable[str]) -> None:
        """Delete checkpoints, and content that no other checkpoint names. May be repeated.

        Args:
            checkpoints: the ones to delete.
            older_than: all that are recorded or older. Content of others stays: one may be under
                way.
        """
        for checkpoint in checkpoints:
            self._objects.delete(checkpoint + _END)
        recorded = set(older_than)
        named = {
            (part.place, part.artifact.digest)
            for checkpoint in self.names()
            for part in self.find(checkpoint).parts
        }
        for found in list(self._objects.list()):
            place, _, rest = found.key.partition("/")
            digest = rest.rpartition("/")[2]
            if rest and place in recorded and (place, digest) not in named:
                self._objects.delete(found.key)

    def _store(self, checkpoint: str) -> ArtifactStore:
        return ArtifactStore(self._objects.below(checkpoint))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _leads_out(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.is_absolute() or ".." in parts.parts or "\0" in path
