"""Studies as a whole, on a database."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries import studies as queries
from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView


class LocalStudies:
    """See `StudyOperations`."""

    def __init__(self, database: Database, among: StudyScope) -> None:
        self._database = database
        self._among = among

    def page(
        self,
        *,
        search: str = "",
        states: Sequence[StudyStatus] = (),
        tags: Sequence[str] = (),
        owner: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[StudyRow]:
        """Return studies, the newest first."""
        only: queries.StudyFilter = {
            "search": search,
            "states": states,
            "tags": tags,
            "owner": owner,
            "among": self._among,
            "before": key_of(after),
        }
        rows = queries.list_studies(self._database, limit + 1, **only)
        return page_of(rows, limit, lambda row: row.study_id)

    def get(self, name: str) -> StudyView:
        """Return a study."""
        return queries.get_study(self._database, name, self._among)
