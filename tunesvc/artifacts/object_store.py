"""Objects by key, in a folder or on an object store, through fsspec.

    file:   a folder, such as the default below `TUNE_HOME`
    s3:     Amazon S3 and its like; AWS_ENDPOINT_URL names another server
    gs:     Google Cloud Storage
    az:     Azure Blob Storage

Credentials come from the environment, as each store's own tools read them; never from the address.
Every call may take as long as the store's timeouts: call it outside of a coordinator's thread.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactMissing,
    ArtifactStoreError,
    ArtifactStoreUnavailable,
)
from tunesvc.util.paths import home_directory, is_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ADDRESS: Final = "TUNE_ARTIFACTS"
READ_BYTES: Final = 4 * 2**20
"""Size of the pieces that an object is read in."""
_READ_AHEAD_BYTES = 32 * 2**20
"""Size of the ranges that an object is requested in."""
_WRITE_BYTES = 16 * 2**20
"""Size of the parts that an object is uploaded in."""
_PARTS_MAX = 9_000
"""S3 takes 10,000 parts of an object."""

_LIBRARIES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
}
"""Module that serves a scheme, and the extra of tunesvc that brings it."""

_S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store."""

    key: str
    bytes: int
    modified: datetime


class ObjectStore:
    """Objects below one address. Safe for several threads and processes at once."""

    def __init__(self, filesystem: AbstractFileSystem, root: str, url: str) -> None:
        """Use the objects below `root` of a file system; `url` is the address to show."""
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self.url = url.rstrip("/")

    @classmethod
    def open(cls, url: str | None = None) -> ObjectStore:
        """Return the store at an address: a folder, or a URL such as `s3://bucket/prefix`.

        Nothing is connected yet.

        Args:
            url: `TUNE_ARTIFACTS` by default, and without it a folder of this user's.

        Raises:
            ArtifactStoreError: no store can have that address, or its library is not installed.
        """
        url = url or os.environ.get(ADDRESS) or str(home_directory() / "artifacts")
        if not is_url(url):
            url = f"file://{Path(url).expanduser().absolute()}"
        _require(url)
        options: dict[str, Any] = {"skip_instance_cache": True}
        if not url.startswith("file:"):
            options["use_listings_cache"] = False  # other processes write, too
        if url.startswith("s3:"):
            options["config_kwargs"] = _S3_TIMEOUTS
        import fsspec.core  # takes as long as half of a worker's own imports

        with _translated(url):
            filesystem, root = fsspec.core.url_to_fs(url, **options)
        return cls(filesystem, root, url)

    def below(self, prefix: str) -> ObjectStore:
        """Return the store of all keys that start with `prefix/`."""
        return ObjectStore(self._filesystem, f"{self._root}/{prefix}", f"{self.url}/{prefix}")

    def write(self, key: str, pieces: Iterable[bytes], size: int = 0) -> int:
        """Write an object and return its size. Others may see a part of it until it is complete.

        Args:
            key: where.
            pieces: the object's bytes.
            size: what is known of the sum of their lengths.
        """
        path = self._path(key)
        block = max(_WRITE_BYTES, size // _PARTS_MAX)
        written = 0
        with _translated(self.url):
            if self._is_local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            stream = self._filesystem.open(path, "wb", block_size=block)
            try:
                for piece in pieces:
                    stream.write(piece)
                    written += len(piece)
                if self._is_local:
                    stream.flush()
                    os.fsync(stream.fileno())
            except BaseException:
                _abandon(stream)
                raise
            stream.close()
        return written

    def publish(self, key: str, content: bytes) -> None:
        """Write a small object that others see as a whole, or not at all.

        Raises:
            ArtifactDamaged: the store has reported success, and has something else.
        """
        upload = f"{key}.{secrets.token_hex(8)}.partial"
        self.write(upload, [content])
        try:
            is_there = b"".join(self.read(upload)) == content
        except ArtifactMissing:
            is_there = False
        if is_there:
            self.move(upload, key)
            found = self.find(key)
            is_there = found is not None and found.bytes == len(content)
        if not is_there:
            with suppress(ArtifactStoreError):
                self.delete(upload)
            raise ArtifactDamaged(
                f"the artifact store at {self.url} reported success, but does not hold {key}: try "
                "again, and check the store if it repeats"
            )

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces of `READ_BYTES`.

        Raises:
            ArtifactMissing: there is none.
        """
        with _translated(self.url, key):
            stream = self._filesystem.open(
                self._path(key),
                "rb",
                block_size=_READ_AHEAD_BYTES,
                cache_type="readahead",
            )
        with closing(stream):
            while True:
                with _translated(self.url, key):
                    piece = stream.read(READ_BYTES)
                if not piece:
                    return
                yield piece

    def find(self, key: str) -> StoredObject | None:
        """Return an object's size and time; None if there is none."""
        try:
            with _translated(self.url, key):
                found = self._filesystem.info(self._path(key))
        except ArtifactMissing:
            return None
        return None if found["type"] != "file" else self._stored(found)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield all objects whose keys start with `prefix/`; none for a prefix without objects."""
        try:
            with _translated(self.url):
                found = self._filesystem.find(self._path(prefix), detail=True)
        except ArtifactMissing:
            return
        for entry in found.values():
            yield self._stored(entry)

    def move(self, old: str, new: str) -> None:
        """Rename an object, over another one of that name. The new name is complete or absent."""
        with _translated(self.url, old):
            if self._is_local:
                Path(self._path(new)).parent.mkdir(parents=True, exist_ok=True)
                Path(self._path(old)).replace(self._path(new))
                return
            self._filesystem.cp_file(self._path(old), self._path(new))
            self._filesystem.rm_file(self._path(old))

    def delete(self, key: str) -> None:
        """Delete an object. May be repeated."""
        with suppress(ArtifactMissing), _translated(self.url, key):
            self._filesystem.rm_file(self._path(key))

    def clear(self) -> None:
        """Delete all objects. May be repeated."""
        for found in list(self.list()):
            self.delete(found.key)
        if self._is_local:
            shutil.rmtree(self._root, ignore_errors=True)

    @property
    def _is_local(self) -> bool:
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self._filesystem, LocalFileSystem)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _stored(self, found: dict[str, Any]) -> StoredObject:
        key = str(found["name"]).removeprefix(self._root.lstrip("/") + "/")
        key = key.removeprefix(self._root + "/")
        return StoredObject(key, int(found["size"]), _modified(found))


def _require(url: str) -> None:
    parts = urlsplit(url)
    if parts.password is not None or (parts.query and parts.scheme != "file"):
        raise ArtifactStoreError(
            f"the address of the artifact store on {parts.hostname} holds a password or key, which "
            "would be shown and logged: leave it out, and set the store's own environment variables"
        )
    if parts.scheme == "file":
        return
    if parts.scheme not in _LIBRARIES:
        known = ", ".join(f"{scheme}:" for scheme in ("file", "s3", "gs", "az"))
        raise ArtifactStoreError(
            f"{ADDRESS} is {url!r}, and no store has that scheme: use one of {known}",
        )
    module, extra = _LIBRARIES[parts.scheme]
    if importlib.util.find_spec(module) is None:
        raise ArtifactStoreError(
            f"{parts.scheme}: needs {module}, which is not installed: "
            f"run `pip install 'tunesvc[{extra}]'`",
        )


def _abandon(stream: Any) -> None:
    """Give up an upload, so that no store keeps its parts."""
    with suppress(Exception):
        stream.discard()
        stream.closed = True  # or its finalizer would upload the rest
    with suppress(Exception):
        stream.close()


def _modified(found: dict[str, Any]) -> datetime:
    """Return an object's time; each store has another name for it."""
    names = ("LastModified", "last_modified", "mtime", "updated", "created")
    value = next((found[name] for name in names if found.get(name) is not None), None)
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return datetime.now(UTC)  # unknown: as if new, so that no collector takes it for old
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


@contextmanager
def _translated(url: str, key: str = "") -> Iterator[None]:
    """Raise what a store's library raises as errors of ours."""
    place = f"{url}/{key}" if key else url
    try:
        yield
    except ArtifactStoreError:
        raise
    except FileNotFoundError:
        raise ArtifactMissing(f"{place} does not exist") from None
    except PermissionError as error:
        raise ArtifactStoreError(
            f"the artifact store refuses access to {place} ({_text(error)}): "
            "check its credentials in the environment and what they allow"
        ) from error
    except Exception as error:
        # Each store's library has exceptions of its own, and most are about the network.
        raise ArtifactStoreUnavailable(
            f"the artifact store at {url} cannot be used for now ({_text(error)}): "
            "check its address and credentials, or try again later"
        ) from error


def _text(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__
