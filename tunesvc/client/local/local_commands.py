"""Requests to a study, on a database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.rows import RequestRow, RowPage
from tunesvc.queries.studies import get_study, get_study_id


class LocalCommands:
    """See `CommandOperations`."""

    def __init__(
        self,
        database: Database,
        user: str,
        among: StudyScope,
        on_command: Callable[[Any, int], None],
    ) -> None:
        self._database = database
        self._user = user
        self._among = among
        self._on_command = on_command

    def send(self, study: str, kind: str, payload: Mapping[str, Any] | None = None) -> str:
        """Send a request, and return its answer."""
        if kind in ("promote", "rollback"):
            from tunesvc.champions.promotion import carry_out

            view = get_study(self._database, study, self._among)
            return carry_out(
                self._database,
                view,
                kind,
                payload or {},
                self._user,
                self._among,
                on_record=self._on_command,
            )
        from tunesvc.runtime import study_requests  # imports what runs studies

        study_id = get_study_id(self._database, study, self._among)
        return study_requests.request(
            self._database,
            study_id,
            kind,
            payload or {},
            self._user,
            on_record=self._on_command,
        )

    def page(self, study: str, *, after: str = "", limit: int = 100) -> RowPage[RequestRow]:
        """Return the requests to a study with their answers, the newest first."""
        study_id = get_study_id(self._database, study, self._among)
        rows = list_requests(self._database, study_id, before=key_of(after), limit=limit + 1)
        return page_of(rows, limit, lambda row: row.command_id)
