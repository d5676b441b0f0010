"""Studies as a whole, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView


class HttpStudies:
    """See `StudyOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

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
        return self._connection.get(
            RowPage[StudyRow],
            "/studies",
            search=search,
            state=list(states),
            tag=list(tags),
            owner=owner,
            after=after,
            limit=limit,
        )

    def get(self, name: str) -> StudyView:
        """Return a study."""
        return self._connection.get(StudyView, study_path(name))
