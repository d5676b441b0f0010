"""Earlier studies, as those learn from them that name them in their `warm_start`."""

from __future__ import annotations

from tunesvc.errors import StudyNotFound
from tunesvc.search.warmstart import Earlier, Teacher
from tunesvc.space import Space
from tunesvc.spec import StudySpec
from tunesvc.store import studies
from tunesvc.store.database import Database
from tunesvc.store.storage import PgStorage


def teacher(database: Database, spec: StudySpec) -> Teacher | None:
    """What the studies of the spec's `warm_start` teach; None without any. One that was deleted teaches nothing."""
    if not spec.warm_start:
        return None
    storage = PgStorage(database)
    found = []
    for name in spec.warm_start:
        try:
            with database.engine.connect() as connection:
                record = studies.find(connection, name)
        except StudyNotFound:
            found.append(Earlier(f"{name}, which is deleted", None, ()))
            continue
        trials = storage.get_all_trials(record.study_id, deepcopy=False)
        found.append(Earlier(name, record.spec, trials))
    return Teacher(spec, Space(spec.parameters), found)
