"""The course of many studies at a glance: the best value so far, in a few steps each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import studies, trials
from tunesvc.queries.rows import StudyRow
from tunesvc.queries.sql import is_candidate

STEPS = 24


def sparklines(database: Database, rows: Sequence[StudyRow]) -> dict[int, tuple[float, ...]]:
    """The best value after each 24th of the trials, by study id; of studies with one objective and any result."""
    single = {row.study_id: row.objectives[0].maximize for row in rows if len(row.objectives) == 1}
    if not single:
        return {}
    step = (trials.c.number * STEPS // sa.func.greatest(studies.c.next_number, 1)).label("step")
    value = trials.c["values"][1]
    query = (
        sa.select(trials.c.study_id, step, sa.func.min(value).label("least"), sa.func.max(value).label("most"))
        .join(studies, studies.c.study_id == trials.c.study_id)
        .where(trials.c.study_id.in_(single), *is_candidate(single))
        .group_by(trials.c.study_id, step)
        .order_by(trials.c.study_id, step)
    )
    found: dict[int, list[float]] = {}
    with database.engine.connect() as connection:
        for row in connection.execute(query):
            found.setdefault(row.study_id, []).append(row.most if single[row.study_id] else row.least)
    return {study: tuple(accumulate(values, max if single[study] else min)) for study, values in found.items()}
