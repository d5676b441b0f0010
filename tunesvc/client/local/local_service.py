"""All studies together, on a database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.rows import RowPage, StudyRow
from tunesvc.queries.studies import get_study_id, list_queue, names_by_id

if TYPE_CHECKING:
    from tunesvc.client.answers import ChampionHistory, ServerInfo, StudyNews
    from tunesvc.db.champions.champion_tenures import Tenure
    from tunesvc.queries.operations.cluster_view import ClusterView
    from tunesvc.service.cluster_shares import ClusterShares

POLL_S = 0.5

CHAMPIONS_MAX = 1_000
"""Most champions and tenures of a family's history that are returned."""


class LocalService:
    """See `ServiceOperations`."""

    def __init__(self, database: Database, user: str, among: StudyScope) -> None:
        self._database = database
        self._user = user
        self._among = among

    def info(self) -> ServerInfo:
        """Return the version of the program, and the user."""
        from tunesvc.client.answers import ServerInfo

        return ServerInfo(metadata.version("tunesvc"), self._user)

    def cluster(self) -> ClusterView:
        """Return nodes with their attempts, what waits, and the coordinators."""
        from tunesvc.queries.operations.cluster_view import get_cluster

        return get_cluster(self._database, self._among)

    def queue(self, *, after: str = "", limit: int = 100) -> RowPage[StudyRow]:
        """Return studies that wait for a server, the next one first."""
        rows = list_queue(self._database, limit + 1, self._among, after=key_of(after) or 0)
        return page_of(rows, limit, lambda row: row.submission and row.submission.position)

    def shares(self) -> ClusterShares:
        """Return how submitted studies share the cluster, and why one waits."""
        from tunesvc.service.cluster_shares import get_shares

        return get_shares(self._database, self._among)

    def champions(self) -> tuple[Tenure, ...]:
        """Return the tenure of each family's champion, by name."""
        from tunesvc.db.champions import champion_tenures

        with self._database.engine.connect() as connection:
            return champion_tenures.list_current_tenures(connection, self._among)

    def champion_history(self, family: str) -> ChampionHistory:
        """Return the newest champions of a family, the newest first, and their announcements."""
        from tunesvc.client.answers import Announcement, ChampionHistory
        from tunesvc.db.champions import (
            champion_records,
            champion_tenures,
            promotion_deliveries,
        )

        with self._database.engine.connect() as connection:
            champion_records.get_current(connection, family, self._among)
            history = champion_records.list_history(
                connection, family, self._among, limit=CHAMPIONS_MAX
            )
            tenures = champion_tenures.list_tenures(
                connection, family, self._among, limit=CHAMPIONS_MAX
            )
            since = tenures[-1].promoted.champion_id
            deliveries = promotion_deliveries.list_deliveries(connection, family, since=since)
        made = (
            Announcement(
                one.champion_id,
                one.hook,
                one.attempts,
                one.delivered_at,
                one.error,
                one.cancelled_at,
            )
            for one in deliveries
        )
        return ChampionHistory(history, tenures, tuple(made))

    def events(self, study: str | None = None, *, after: str = "") -> Iterator[StudyNews]:
        """Yield changes as they come, of one study or of all."""
        from tunesvc.client.answers import StudyNews
        from tunesvc.queries.change_token import change_tokens

        only = None if study is None else get_study_id(self._database, study, self._among)
        before = change_tokens(self._database)
        if after:
            yield StudyNews((), "", is_gap=True)
        while True:
            time.sleep(POLL_S)
            now = change_tokens(self._database)
            ids = {one for one in before.keys() | now.keys() if before.get(one) != now.get(one)}
            before = now
            names = names_by_id(self._database, ids, self._among)
            changed = tuple(name for one, name in names.items() if only in (None, one))
            if changed:
                yield StudyNews(changed, "")
