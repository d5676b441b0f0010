"""Requests to a study, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.queries.rows import RequestRow, RowPage


class HttpCommands:
    """See `CommandOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def send(self, study: str, kind: str, payload: Mapping[str, Any] | None = None) -> str:
        """Send a request, and return its answer."""
        body = {"kind": kind, "payload": payload or {}}
        return self._connection.post(str, study_path(study, "commands"), body)

    def page(self, study: str, *, after: str = "", limit: int = 100) -> RowPage[RequestRow]:
        """Return the requests to a study with their answers, the newest first."""
        path = study_path(study, "commands")
        return self._connection.get(RowPage[RequestRow], path, after=after, limit=limit)
