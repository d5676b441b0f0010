"""Earlier studies, as those learn from them that name them in their `warm_start`."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.study import StudyDirection

from tunesvc.errors import StudyNotFound
from tunesvc.search.warmstart import Earlier, Teacher
from tunesvc.space import Space
from tunesvc.spec import StudySpec
from tunesvc.spec.model import Goal
from tunesvc.store import studies
from tunesvc.store.database import Database
from tunesvc.store.storage import PgStorage

GOALS: Mapping[StudyDirection, Goal] = {
    StudyDirection.MINIMIZE: "minimize",
    StudyDirection.MAXIMIZE: "maximize",
    StudyDirection.NOT_SET: "minimize",
}


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
        directions = storage.get_study_directions(record.study_id)
        goals = [GOALS[direction] for direction in directions]
        found.append(Earlier(name, record.spec, trials, goals))
    return Teacher(spec, Space(spec.parameters), found)
