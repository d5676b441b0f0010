"""A checkpoint as a stream of bytes: a tar archive of its file or folder, in bounded memory."""

from __future__ import annotations

import io
import queue
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tunesvc.artifacts.archive_links import links_problem
from tunesvc.errors import TuneError
from tunesvc.util.characters import find_unstorable

CHUNK_BYTES = 2**20
_WAITING_MAX = 4
_END_S = 60.0


def pack(path: Path) -> Iterator[bytes]:
    """Yield an archive of a file or folder.

    Raises:
        OSError: it cannot be read.
    """
    chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(_WAITING_MAX)
    is_abandoned = threading.Event()
    writer = threading.Thread(target=_write, args=(path, chunks, is_abandoned), daemon=True)
    writer.start()
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        is_abandoned.set()
        with suppress(queue.Empty):
            while True:
                chunks.get_nowait()


def _write(
    path: Path,
    chunks: queue.Queue[bytes | BaseException | None],
    is_abandoned: threading.Event,
) -> None:
    try:
        sink = _ChunkWriter(chunks, is_abandoned)
        with tarfile.open(fileobj=sink, mode="w|", bufsize=CHUNK_BYTES) as archive:
            archive.add(path, path.name)
        chunks.put(None)
    except BaseException as error:  # noqa: BLE001  # raised where the archive is read
        with suppress(queue.Full):
            chunks.put(error, timeout=0 if is_abandoned.is_set() else _END_S)


class _ChunkWriter(io.RawIOBase):
    def __init__(
        self, chunks: queue.Queue[bytes | BaseException | None], is_abandoned: threading.Event
    ) -> None:
        self._chunks = chunks
        self._is_abandoned = is_abandoned

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        if self._is_abandoned.is_set():
            raise BrokenPipeError("the archive has no reader")
        self._chunks.put(bytes(data))
        return len(data)


def unpack(chunks: Iterable[bytes], folder: Path) -> Path:
    """Write the file or folder of an archive below a folder, and return its path.

    The folder appears whole or not at all, under its name.

    Raises:
        OSError: the archive is no checkpoint, or the disk is full.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=_ChunkReader(chunks), mode="r|", bufsize=CHUNK_BYTES) as archive:
            _extract(archive, partial)
        (content,) = partial.iterdir()
        if find_unstorable(content.name) is not None:
            raise ValueError(f"{content.name!r} is not text")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise OSError(f"this is no checkpoint: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / content.name


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write all members; links last, so that nothing is written through one."""
    members = []
    for member in archive:
        members.append(member)
        if not member.issym():
            archive.extract(member, folder, filter="data")
    if (problem := links_problem(members)) is not None:
        raise ValueError(f"it has {problem}")
    for member in members:
        if member.issym():
            archive.extract(member, folder, filter="data")


def unpack_into(chunks: Iterable[bytes], folder: Path) -> Path:
    """Write the file or folder of an archive into a folder, under its own name; return its path.

    Raises:
        TuneError: something of that name is there already, or the archive is no checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetched-") as temporary:
        try:
            content = unpack(chunks, Path(temporary) / "checkpoint")
        except OSError as error:
            raise TuneError(f"the checkpoint cannot be written to {folder}: {error}") from error
        path = folder / content.name
        if path.exists():
            raise TuneError(f"{path} is there already: remove it, or name another folder")
        return content.rename(path)


class _ChunkReader(io.RawIOBase):
    """A file of chunks, for reading from start to end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
