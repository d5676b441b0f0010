"""Artifacts by digest: equal content is kept once, and what is read is what was written.

    sha256/ab/ab12...   an artifact, under the SHA-256 of its bytes
    uploads/<random>    one that is being written

An artifact is written under a temporary name, read back, and only then published. Any number of
processes may put the same one at the same time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from tunesvc.artifacts.object_store import READ_BYTES, ObjectStore, StoredObject
from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactMissing,
    ArtifactStoreError,
    ArtifactTooLarge,
)

_PLACE = "sha256"
_UPLOADS = "uploads"
_DIGEST = re.compile(r"[0-9a-f]{64}")

UPLOAD_MAX: Final = timedelta(days=1)
"""No upload takes longer: an older unfinished one is garbage."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Content in a store."""

    digest: str
    """SHA-256 of its bytes, in hexadecimal."""
    bytes: int


class ArtifactStore:
    """Artifacts in an object store."""

    def __init__(self, objects: ObjectStore) -> None:
        """Keep artifacts among these objects."""
        self._objects = objects

    @classmethod
    def open(cls, url: str | None = None) -> ArtifactStore:
        """Return the artifacts at an address, see `ObjectStore.open`."""
        return cls(ObjectStore.open(url))

    @property
    def url(self) -> str:
        """Address of the store."""
        return self._objects.url

    def put(
        self,
        pieces: Iterable[bytes],
        *,
        digest: str | None = None,
        bytes_max: int | None = None,
        size: int = 0,
    ) -> Artifact:
        """Store content that is read once, in pieces. May be repeated.

        A crash leaves an unfinished upload, which `clean` removes.

        Args:
            pieces: the content.
            digest: what its digest has to be.
            bytes_max: the largest content that is taken.
            size: what is known of its size.

        Raises:
            ArtifactDamaged: the content has another digest, or the store changed it.
            ArtifactTooLarge: it is larger than `bytes_max`.
            ArtifactStoreUnavailable: the store does not answer, or is full.
        """
        if digest is not None:
            checked_digest(digest)
        upload = f"{_UPLOADS}/{secrets.token_hex(16)}"
        meter = _Meter(bytes_max)
        try:
            self._objects.write(upload, meter.measured(pieces), size)
            artifact = meter.artifact
            if digest not in (None, artifact.digest):
                raise ArtifactDamaged(
                    f"content of digest {digest} arrived with digest {artifact.digest}: "
                    "send it again",
                )
            if not self.holds(artifact):
                self._verify(upload, artifact)
                self._objects.move(upload, key_of(artifact.digest))
                self._require(artifact)
                return artifact
        except BaseException:
            self._abandon(upload)
            raise
        self._abandon(upload)
        return artifact

    def put_file(self, path: Path, *, fresh: timedelta | None = None) -> Artifact:
        """Store a file's content, without an upload if the store holds it already.

        Args:
            path: the file.
            fresh: upload it again if the stored copy is older, so that no collector takes it.
        """
        artifact = measure(path)
        if not self.holds(artifact, fresh):
            with path.open("rb") as file:
                self.put(pieces_of(file), digest=artifact.digest, size=artifact.bytes)
        return artifact

    def get(self, digest: str, path: Path) -> None:
        """Write an artifact's content to a file, which appears whole or not at all.

        Raises:
            ArtifactMissing: the store has none of that digest.
            ArtifactDamaged: its content is not what was put.
        """
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("wb") as file:
                for piece in self.read(digest):
                    file.write(piece)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, digest: str) -> Iterator[bytes]:
        """Return an artifact's content in pieces; the last step checks the digest of all.

        Raises:
            ArtifactMissing: at once, the store has none of that digest.
            ArtifactDamaged: at the end, its content is not what was put.
        """
        if not self.exists(digest):
            raise ArtifactMissing(f"{self.url}/{key_of(digest)} does not exist")
        return self._checked(digest)

    def _checked(self, digest: str) -> Iterator[bytes]:
        meter = _Meter(None)
        yield from meter.measured(self._objects.read(key_of(digest)))
        if meter.artifact.digest != digest:
            raise ArtifactDamaged(
                f"artifact {digest} in {self.url} is damaged: its content has digest "
                f"{meter.artifact.digest}. Delete it there and store it again"
            )

    def find(self, digest: str) -> StoredObject | None:
        """Return the size and time of an artifact; None if the store has none of that digest."""
        return self._objects.find(key_of(digest))

    def exists(self, digest: str) -> bool:
        """Return whether the store has an artifact of that digest."""
        return self.find(digest) is not None

    def holds(self, artifact: Artifact, fresh: timedelta | None = None) -> bool:
        """Return whether the store has an artifact in its full size, and no older than `fresh`."""
        found = self.find(artifact.digest)
        if found is None or found.bytes != artifact.bytes:
            return False
        return fresh is None or datetime.now(UTC) - found.modified < fresh

    def delete(self, digest: str) -> None:
        """Delete an artifact. May be repeated."""
        self._objects.delete(key_of(digest))

    def list(self) -> Iterator[StoredObject]:
        """Yield all artifacts, with the digest as key."""
        for found in self._objects.list(_PLACE):
            digest = found.key.rpartition("/")[2]
            if _DIGEST.fullmatch(digest):
                yield StoredObject(digest, found.bytes, found.modified)

    def clean(self) -> int:
        """Delete uploads that were never finished; return their number."""
        before = datetime.now(UTC) - UPLOAD_MAX
        left = [found for found in self._objects.list(_UPLOADS) if found.modified < before]
        for found in left:
            self._objects.delete(found.key)
        return len(left)

    def _verify(self, key: str, artifact: Artifact) -> None:
        """Read an upload back.

        Raises:
            ArtifactDamaged: the store has something else.
        """
        meter = _Meter(None)
        with suppress(ArtifactMissing):
            for _ in meter.measured(self._objects.read(key)):
                pass
        if meter.artifact != artifact:
            raise ArtifactDamaged(
                f"the artifact store at {self.url} reported success, but holds "
                f"{meter.artifact.bytes} other bytes instead of the {artifact.bytes} that it was "
                "sent: try again, and check the store if it repeats"
            )

    def _require(self, artifact: Artifact) -> None:
        if not self.holds(artifact):
            raise ArtifactDamaged(
                f"the artifact store at {self.url} reported success, but does not hold artifact "
                f"{artifact.digest}: try again, and check the store if it repeats"
            )

    def _abandon(self, upload: str) -> None:
        with suppress(ArtifactStoreError):
            self._objects.delete(upload)


class _Meter:
    """The digest and size of what passes through."""

    def __init__(self, bytes_max: int | None) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._bytes_max = bytes_max

    def measured(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield all pieces, and measure them."""
        for piece in pieces:
            self._hash.update(piece)
            self._bytes += len(piece)
            if self._bytes_max is not None and self._bytes > self._bytes_max:
                raise ArtifactTooLarge(
                    f"content is larger than {self._bytes_max} bytes, the most that is taken",
                )
            yield piece

    @property
    def artifact(self) -> Artifact:
        """Return what has passed until now."""
        return Artifact(self._hash.hexdigest(), self._bytes)


def measure(path: Path) -> Artifact:
    """Return a file's digest and size."""
    meter = _Meter(None)
    with path.open("rb") as file:
        for _ in meter.measured(pieces_of(file)):
            pass
    return meter.artifact


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's bytes in pieces."""
    while piece := file.read(READ_BYTES):
        yield piece


def key_of(digest: str) -> str:
    """Return an artifact's key in its object store."""
    return f"{_PLACE}/{digest[:2]}/{checked_digest(digest)}"


def checked_digest(digest: str) -> str:
    """Return a digest that has the form of one.

    Raises:
        ArtifactMissing: it has not, so that nothing has it.
    """
    if not _DIGEST.fullmatch(digest):
        raise ArtifactMissing(
            f"{digest[:80]!r} is no digest: one is the SHA-256 in 64 hexadecimal digits",
        )
    return digest
