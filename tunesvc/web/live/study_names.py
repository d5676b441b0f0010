"""Names of changed studies for many streams at once: read once, whichever user asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.people.accounts import Account
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.queries.studies import names_and_projects

KNOWN_S = 2.0
"""Time after which a study's name and project are read again."""
KNOWN_MAX = 10_000

Named = Mapping[int, tuple[str, int | None]]
"""Names and projects of studies, by id."""


class StudyNames:
    """Names and projects of studies. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[int, tuple[str, int | None, float]] = {}
        """Name, project and time of reading."""

    async def find(self, ids: Collection[int]) -> Named:
        """Return those that exist, by id.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        known = self._recall(ids)
        return await run_in_threadpool(self._read, ids) if known is None else known

    def _recall(self, ids: Collection[int]) -> Named | None:
        oldest_s = time.monotonic() - KNOWN_S
        found = {study_id: self._known.get(study_id) for study_id in sorted(ids)}
        if any(one is None or one[2] < oldest_s for one in found.values()):
            return None
        return {study_id: one[:2] for study_id, one in found.items() if one is not None}

    def _read(self, ids: Collection[int]) -> Named:
        with self._lock:
            known = self._recall(ids)
            if known is not None:  # another stream has read them meanwhile
                return known
            with translate_unavailable():
                rows = names_and_projects(self._database, ids)
            now_s = time.monotonic()
            if len(self._known) > KNOWN_MAX:
                self._known.clear()
            for study_id, (name, project_id) in rows.items():
                self._known[study_id] = (name, project_id, now_s)
            return rows


@dataclass(frozen=True, slots=True)
class NewsReader:
    """A client or page that reads which studies change."""

    names: StudyNames
    account: Account | None = None
    """None for the owner of the machine."""
    among: StudyScope = ALL_STUDIES
    """Studies that the user may view."""
    only: int | None = None
    """The one study that it asks about; None for all."""

    async def names_of(self, changed: set[int]) -> list[str]:
        """Return the names of changed studies that it is sent; deleted ones have none."""
        ids = changed if self.only is None else changed & {self.only}
        found = await self.names.find(ids)
        return [name for name, project in found.values() if self.among.includes(project)]

    async def ids_of(self, changed: set[int]) -> list[int]:
        """Return the ids of changed studies without those that it may not view."""
        if self.among == ALL_STUDIES:
            return sorted(changed)
        found = await self.names.find(changed)
        hidden = {one for one, (_, project) in found.items() if not self.among.includes(project)}
        return sorted(changed - hidden)
