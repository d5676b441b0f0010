"""A form with files, written to a folder as it arrives: memory holds one piece at a time."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tunesvc.artifacts.snapshot_files import FILES_MAX
from tunesvc.artifacts.unpacking import require_inside_name
from tunesvc.errors import SnapshotError

_FIELD_MAX = 4_096


class ReceivedForm:
    """The parts of a form of type `multipart/form-data`.

    Files of a folder have their path in it as their name; they are written below `files`. The
    file of field `archive` is written to `archive`, whatever its name is.

    Args:
        content_type: header of the request.
        root: an empty folder.
    """

    def __init__(self, content_type: str, root: Path) -> None:
        self.files = root / "files"
        self.archive = root / "archive"
        self.fields: dict[str, str] = {}
        self.names: dict[str, str] = {}
        """Name of the last file of each field."""
        self._file: BinaryIO | None = None
        self._count = 0
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field = ""
        self._text: bytearray | None = None
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise SnapshotError("the form has no files: send it as multipart/form-data")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_end,
            },
        )

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            SnapshotError: a name leads out of the folder, or there are too many files.
        """
        try:
            self._parser.write(piece)
        except (FormParserError, OSError, ValueError) as error:
            raise SnapshotError(f"the form cannot be read: {error}") from None

    def close(self) -> None:
        """Close the file that was being written. Repeatable."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        name = options.get(b"filename")
        self._text = bytearray() if name is None else None
        if name:
            self._open(name.decode("utf-8"))

    def _open(self, name: str) -> None:
        self._count += 1
        if self._count > FILES_MAX:
            raise SnapshotError(f"the folder has too many files; it may have {FILES_MAX}")
        require_inside_name(name)
        path = self.archive if self._field == "archive" else self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")
        self.names[self._field] = name

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > _FIELD_MAX:
                raise SnapshotError(f"field {self._field[:40]!r} is too long")

    def _on_end(self) -> None:
        self.close()
        if self._text is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")
            self._text = None
