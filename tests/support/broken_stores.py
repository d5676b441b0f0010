"""Object stores that fail in one way, as real implementations of fsspec's protocol."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from tunesvc.artifacts.object_store import ObjectStore


class BrokenFilesystem(DirFileSystem):
    """A folder behind a fault, which a test switches on and off."""

    cachable = False

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), LocalFileSystem(auto_mkdir=True))
        self.fault = ""
        self.is_ready = threading.Event()
        """Ends the wait of a store that is slow."""
        self.written: list[str] = []
        """Names of the objects that were opened for writing."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self._fail()
        if "w" in mode:
            self.written.append(path)
            if self.fault == "full":
                raise OSError(28, "No space left on device")
            stream = super().open(path, mode, **options)
            return _Altered(stream, self.fault) if self.fault in _ALTERED else stream
        return super().open(path, mode, **options)

    def info(self, path: str, **options: Any) -> Any:
        self._fail()
        return super().info(path, **options)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        self._fail()
        return super().find(path, *args, **options)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        self._fail()
        if self.fault != "copies nothing":
            super().cp_file(path1, path2, **options)

    def rm_file(self, path: str) -> None:
        self._fail()
        super().rm_file(path)

    def _fail(self) -> None:
        if self.fault == "away":
            raise ConnectionError("Could not connect to the endpoint URL")
        if self.fault == "forbidden":
            raise PermissionError("Access Denied")
        if self.fault == "slow":
            self.is_ready.wait(30)


_ALTERED = ("drops the end", "flips a bit", "writes nothing")


class _Altered:
    """A stream that reports success and stores something else."""

    def __init__(self, stream: Any, fault: str) -> None:
        self._stream, self._fault = stream, fault

    def write(self, piece: bytes) -> int:
        if self._fault == "drops the end":
            self._stream.write(piece[:-1])
        elif self._fault == "flips a bit":
            self._stream.write(bytes([piece[0] ^ 1]) + piece[1:])
        return len(piece)

    def close(self) -> None:
        self._stream.close()


def broken_store(folder: Path) -> tuple[ObjectStore, BrokenFilesystem]:
    """Return a store in a folder, and its file system, whose `fault` a test sets."""
    filesystem = BrokenFilesystem(folder)
    return ObjectStore(filesystem, "", "fake://store"), filesystem
