"""Exported trials as bytes, in every format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tunesvc.db.engine import json_numbers
from tunesvc.queries.export.export_files import Export

if TYPE_CHECKING:
    from tunesvc.client.interface import ExportFormat


def export_pieces(export: Export, format: ExportFormat) -> Iterator[bytes]:
    """Yield a file in pieces: CSV, Parquet, or an object per trial in JSON or in lines of JSON."""
    match format:
        case "csv":
            return (text.encode() for text in export.csv())
        case "parquet":
            return export.parquet()
        case "jsonl":
            return (_object(line) + b"\n" for line in export.lines())
    return _array(export)


def _array(export: Export) -> Iterator[bytes]:
    before = b"["
    for line in export.lines():
        yield before + _object(line)
        before = b",\n "
    yield b"[]\n" if before == b"[" else b"]\n"


def _object(line: Mapping[str, Any]) -> bytes:
    return json_numbers.dump({name: _plain(value) for name, value in line.items()}).encode()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
