"""When which worker was busy: the newest attempts as spans of time, on the lanes that their workers make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import attempts
from tunesvc.queries.sql import in_study

SPANS = 2_000


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt's time on a worker."""

    trial_number: int
    attempt: int
    state: AttemptState
    node: str
    pid: int | None
    started_at: datetime
    ended_at: datetime
    """Of a running one: now."""
    message: str | None
    lane: int = 0
    """Of its node: as many lanes as attempts ran at a time; a worker's attempts share one where they can."""


def list_spans(database: Database, study_id: int, limit: int = SPANS) -> tuple[Span, ...]:
    """Attempts of the newest trials that have started, by their start."""
    table = attempts
    newest = (
        sa.select(
            table.c.trial_id,
            table.c.number,
            table.c.state,
            table.c.node,
            table.c.pid,
            table.c.started_at,
            sa.func.coalesce(table.c.ended_at, sa.func.now()),
            sa.func.left(table.c.message, 200),
        )
        .where(in_study(table.c.trial_id, study_id), table.c.started_at.is_not(None))
        .order_by(table.c.trial_id.desc(), table.c.number.desc())
        .limit(limit)
    )
    with database.engine.connect() as connection:
        rows = connection.execute(newest).all()
    found = [
        Span(
            number_of(row[0]),
            row[1],
            AttemptState(row[2]),
            row[3] or "an unknown node",
            row[4],
            row[5],
            row[6],
            row[7],
        )
        for row in rows
    ]
    return assign_lanes(found)


def assign_lanes(found: Iterable[Span]) -> tuple[Span, ...]:
    """The spans in order of their start, each on a lane of its node that was free, its own worker's if that was."""
    free: dict[str, list[tuple[datetime, int | None]]] = {}
    placed = []
    for span in sorted(found, key=lambda span: (span.started_at, span.trial_number)):
        lanes = free.setdefault(span.node, [])
        open_ones = [i for i, (until, _) in enumerate(lanes) if until <= span.started_at]
        own = [i for i in open_ones if lanes[i][1] == span.pid and span.pid is not None]
        lane = (own or open_ones or [len(lanes)])[0]
        lanes[lane : lane + 1] = [(max(span.ended_at, span.started_at), span.pid)]
        placed.append(replace(span, lane=lane))
    return tuple(placed)
