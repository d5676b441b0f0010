"""Timeline of workers: the newest attempts as spans of time, in lanes by worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import attempts
from tunesvc.queries.rows import from_row
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
    """Now, for a running attempt."""
    message: str | None
    lane: int = 0
    """Lane on its node. A node has as many lanes as attempts ran at a time; attempts of one worker
    share a lane if possible."""


def list_spans(
    database: Database,
    study_id: int,
    limit: int = SPANS,
) -> tuple[Span, ...]:
    """Return the started attempts of the newest trials, by start."""
    columns = attempts.c
    newest = (
        sa.select(
            columns.trial_id,
            columns.number.label("attempt"),
            columns.state,
            columns.node,
            columns.pid,
            columns.started_at,
            sa.func.coalesce(columns.ended_at, sa.func.now()).label("ended_at"),
            sa.func.left(columns.message, 200).label("message"),
        )
        .where(in_study(columns.trial_id, study_id), columns.started_at.is_not(None))
        .order_by(columns.trial_id.desc(), columns.number.desc())
        .limit(limit)
    )
    rows = database.rows(newest)
    return assign_lanes(_span(row) for row in rows)


def _span(row: Any) -> Span:
    return from_row(
        Span,
        row,
        trial_number=number_of(row.trial_id),
        state=AttemptState(row.state),
        node=row.node or "an unknown node",
    )


def assign_lanes(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Assign each span a free lane of its node, preferably its worker's; return them by start."""
    lanes_by_node: dict[str, list[tuple[datetime, int | None]]] = {}
    """End and worker of the last span of each lane."""
    assigned = []
    for span in sorted(spans, key=lambda span: (span.started_at, span.trial_number)):
        lanes = lanes_by_node.setdefault(span.node, [])
        lane = _lane_for(span, lanes)
        until = max(span.ended_at, span.started_at)
        lanes[lane : lane + 1] = [(until, span.pid)]
        assigned.append(replace(span, lane=lane))
    return tuple(assigned)


def _lane_for(span: Span, lanes: Sequence[tuple[datetime, int | None]]) -> int:
    """Return the first free lane of its worker, or of any; else a new one."""
    free: list[int] = []
    own: list[int] = []
    for lane, (until, pid) in enumerate(lanes):
        if until <= span.started_at:
            free.append(lane)
            if pid is not None and pid == span.pid:
                own.append(lane)
    return [*own, *free, len(lanes)][0]
