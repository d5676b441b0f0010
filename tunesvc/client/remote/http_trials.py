"""Trials of a study, over HTTP."""

from __future__ import annotations

from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.queries.rows import RowPage, TrialDetail, TrialRow


class HttpTrials:
    """See `TrialOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def page(
        self,
        study: str,
        *,
        where: str = "",
        sort: str = "number",
        after: str = "",
        limit: int = 100,
    ) -> RowPage[TrialRow]:
        """Return trials that match a filter, in an order."""
        return self._connection.get(
            RowPage[TrialRow],
            study_path(study, "trials"),
            where=where,
            sort=sort,
            after=after,
            limit=limit,
        )

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        return self._connection.get(int, study_path(study, "trials", "count"), where=where)

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes."""
        return self._connection.get(TrialDetail, study_path(study, "trials", number))
