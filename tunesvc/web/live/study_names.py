"""Names of changed studies for many streams at once: read once, whichever user asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.studies import names_and_projects

KNOWN_S = 30.0
"""Time after which a study's name and project are read again."""
KNOWN_MAX = 10_000


class StudyNames:
    """Names and projects of studies, by id. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[int, tuple[str, int | None, float]] = {}
        """Name, project and time of reading."""

    def known(self, ids: Collection[int], among: StudyScope) -> list[str] | None:
        """Return the names of those that a user may view; None if one has to be read."""
        oldest_s = time.monotonic() - KNOWN_S
        found = [self._known.get(study_id) for study_id in sorted(ids)]
        if any(one is None or one[2] < oldest_s for one in found):
            return None
        return [one[0] for one in found if one is not None and among.includes(one[1])]

    def read(self, ids: Collection[int], among: StudyScope) -> list[str]:
        """Return the names of those that a user may view; deleted studies have none.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        with self._lock:
            names = self.known(ids, among)
            if names is not None:  # another stream has read them meanwhile
                return names
            with translate_unavailable():
                rows = names_and_projects(self._database, ids)
            now_s = time.monotonic()
            if len(self._known) > KNOWN_MAX:
                self._known.clear()
            for study_id, (name, project_id) in rows.items():
                self._known[study_id] = (name, project_id, now_s)
            return [name for name, project_id in rows.values() if among.includes(project_id)]
