"""All studies together, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesvc.client.remote.connection import ServerConnection
from tunesvc.queries.rows import RowPage, StudyRow

if TYPE_CHECKING:
    from tunesvc.client.answers import ChampionHistory, ServerInfo, StudyNews
    from tunesvc.db.champions.champion_tenures import Tenure
    from tunesvc.queries.operations.cluster_view import ClusterView
    from tunesvc.service.cluster_shares import ClusterShares


class HttpService:
    """See `ServiceOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def info(self) -> ServerInfo:
        """Return the version of the program, and the user."""
        from tunesvc.client.answers import ServerInfo

        return self._connection.get(ServerInfo, "/server")

    def cluster(self) -> ClusterView:
        """Return nodes with their attempts, what waits, and the coordinators."""
        from tunesvc.queries.operations.cluster_view import ClusterView

        return self._connection.get(ClusterView, "/cluster")

    def queue(self, *, after: str = "", limit: int = 100) -> RowPage[StudyRow]:
        """Return studies that wait for a server, the next one first."""
        return self._connection.get(RowPage[StudyRow], "/queue", after=after, limit=limit)

    def shares(self) -> ClusterShares:
        """Return how submitted studies share the cluster, and why one waits."""
        from tunesvc.service.cluster_shares import ClusterShares

        return self._connection.get(ClusterShares, "/shares")

    def champions(self) -> tuple[Tenure, ...]:
        """Return the tenure of each family's champion, by name."""
        from tunesvc.db.champions.champion_tenures import Tenure

        return self._connection.get(tuple[Tenure, ...], "/champions")

    def champion_history(self, family: str) -> ChampionHistory:
        """Return the champions of a family, the newest first, and their announcements."""
        from tunesvc.client.answers import ChampionHistory

        return self._connection.get(ChampionHistory, "/champion", family=family)

    def events(self, study: str | None = None, *, after: str = "") -> Iterator[StudyNews]:
        """Yield changes as they come, of one study or of all."""
        from tunesvc.client.answers import StudyNews

        for event in self._connection.events("/events", after, study=study):
            if event.name == "changed":
                yield StudyNews(tuple(json.loads(event.data)["studies"]), event.id)
            elif event.name == "gap":
                yield StudyNews((), event.id, is_gap=True)
