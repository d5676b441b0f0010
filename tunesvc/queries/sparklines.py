"""Sparklines of many studies: the best value so far in a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import studies, trials
from tunesvc.queries.rows import StudyRow
from tunesvc.queries.sql import is_candidate

STEPS = 24


def sparklines(
    database: Database,
    rows: Sequence[StudyRow],
) -> dict[int, tuple[float, ...]]:
    """Return the best value after each 24th of the trials, by study id.

    Contains only studies with one objective and a result.
    """
    single = {row.study_id: row.objectives[0].maximize for row in rows if len(row.objectives) == 1}
    if not single:
        return {}
    total = sa.func.greatest(studies.c.next_number, 1)
    step = (trials.c.number * STEPS // total).label("step")
    value = trials.c["values"][1]
    query = (
        sa.select(
            trials.c.study_id,
            step,
            sa.func.min(value).label("least"),
            sa.func.max(value).label("most"),
        )
        .join(studies, studies.c.study_id == trials.c.study_id)
        .where(trials.c.study_id.in_(single), *is_candidate(single))
        .group_by(trials.c.study_id, step)
        .order_by(trials.c.study_id, step)
    )
    best: dict[int, list[float]] = {}
    for row in database.rows(query):
        value_of_step = row.most if single[row.study_id] else row.least
        best.setdefault(row.study_id, []).append(value_of_step)
    lines = {}
    for study_id, values in best.items():
        better = max if single[study_id] else min
        lines[study_id] = tuple(accumulate(values, better))
    return lines
