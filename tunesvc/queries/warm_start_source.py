"""Source studies of a spec's `warm_start`."""

from __future__ import annotations

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import StudyNotFound
from tunesvc.search.warm_start import SourceStudy, WarmStart
from tunesvc.space.directions import goal_of
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec


def load_warm_start(database: Database, spec: StudySpec) -> WarmStart | None:
    """Return the trials of the spec's `warm_start` studies; None without any.

    A deleted study contributes no trials.
    """
    if not spec.warm_start:
        return None
    storage = PgStorage(database)
    sources = []
    for name in spec.warm_start:
        try:
            with database.engine.connect() as connection:
                record = study_records.find(connection, name)
        except StudyNotFound:
            sources.append(SourceStudy(f"{name}, which is deleted", None, ()))
            continue
        trials = storage.get_all_trials(record.study_id, deepcopy=False)
        directions = storage.get_study_directions(record.study_id)
        goals = [goal_of(direction) for direction in directions]
        sources.append(SourceStudy(name, record.spec, trials, goals))
    return WarmStart(spec, Space(spec.parameters), sources)
