"""What happened to trials: attempts, decisions, curves and logs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine import json_numbers as stored_numbers
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of, trial_id
from tunesvc.db.schema.states import AttemptState
from tunesvc.queries.rows import AttemptRow, DecisionRow, LogRow, Point, ReportCurve
from tunesvc.queries.sql import DECISION_COLUMNS, in_study

_IDS = pg.ARRAY(sa.BigInteger)
_LOG_ROWS = 2_000
"""Rows of output that are looked at from the end."""


def list_attempts(
    database: Database,
    study_id: int,
    *,
    numbers: Sequence[int] | None = None,
    limit: int | None = None,
) -> tuple[AttemptRow, ...]:
    """Executions, by trial and attempt; of the trials `numbers`, or of all."""
    table = tables.attempts
    query = (
        sa.select(
            table.c.trial_id,
            table.c.number,
            table.c.state,
            table.c.opened_at,
            table.c.started_at,
            table.c.ended_at,
            table.c.cpus,
            table.c.gpus,
            table.c.node,
            table.c.pid,
            table.c.devices,
            table.c.stop_cause,
            table.c.failure,
            table.c.message,
            table.c.traceback,
            table.c.checkpoint,
            table.c.checkpoint_step,
        )
        .where(_of(table.c.trial_id, study_id, numbers))
        .order_by(table.c.trial_id, table.c.number)
        .limit(limit)
    )
    with database.engine.connect() as connection:
        return tuple(_attempt(row) for row in connection.execute(query))


def list_decisions(
    database: Database,
    study_id: int,
    *,
    number: int | None = None,
    after: int = 0,
    limit: int | None = None,
) -> tuple[DecisionRow, ...]:
    """Decisions in the order in which they were taken; about trial `number`, or all.

    Args:
        database: where to read.
        study_id: whose decisions.
        number: about this trial only.
        after: the last `decision_id` of the page before.
        limit: at most so many.
    """
    table = tables.decisions
    query = sa.select(*DECISION_COLUMNS).where(
        table.c.study_id == study_id,
        table.c.decision_id > after,
    )
    if number is not None:
        query = query.where(table.c.trial_number == number)
    with database.engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.decision_id).limit(limit)).all()
    return tuple(DecisionRow(*row) for row in rows)


def get_curves(
    database: Database,
    study_id: int,
    *,
    numbers: Sequence[int] | None = None,
    max_points: int | None = None,
) -> tuple[ReportCurve, ...]:
    """Learning curves by trial number; where several attempts reported a step, the newest attempt's value.

    Reports that a later attempt superseded, by going on from an earlier checkpoint, are no part of a curve.

    Args:
        database: where to read.
        study_id: whose trials.
        numbers: of these trials; all when None.
        max_points: thin every curve out to about so many points, the last one always among them.
    """
    with database.engine.connect() as connection:
        rows = connection.execute(
            _points(_of(tables.reports.c.trial_id, study_id, numbers), max_points),
        ).all()
    return tuple(
        ReportCurve(number_of(one), tuple(_point(row) for row in group))
        for one, group in groupby(rows, key=lambda row: int(row.trial_id))
    )


def get_curve(database: Database, study_id: int, number: int) -> ReportCurve:
    """One trial's learning curve, every step of it."""
    found = get_curves(database, study_id, numbers=[number])
    return found[0] if found else ReportCurve(number, ())


def list_logs(
    database: Database,
    study_id: int,
    number: int,
    *,
    attempt: int | None = None,
    after: tuple[int, int] = (0, 0),
    limit: int = 1000,
) -> tuple[LogRow, ...]:
    """A trial's output in order.

    Args:
        database: where to read.
        study_id: whose trial.
        number: which trial.
        attempt: of this attempt only.
        after: `LogRow.cursor` of the last row read.
        limit: at most so many rows.
    """
    table = tables.logs
    query = sa.select(
        table.c.attempt,
        table.c.seq,
        table.c.stream,
        table.c.text,
        table.c.logged_at,
    ).where(
        table.c.trial_id == trial_id(study_id, number),
        sa.tuple_(table.c.attempt, table.c.seq) > sa.tuple_(*after),
    )
    if attempt is not None:
        query = query.where(table.c.attempt == attempt)
    with database.engine.connect() as connection:
        rows = connection.execute(
            query.order_by(table.c.attempt, table.c.seq).limit(limit),
        ).all()
    return tuple(LogRow(row.attempt, row.seq, row.stream, row.text, row.logged_at) for row in rows)


def log_end(
    database: Database,
    study_id: int,
    number: int,
    *,
    before: tuple[int, int] | None = None,
    characters: int = 100_000,
) -> tuple[tuple[LogRow, ...], bool]:
    """The end of a trial's output, in order: at most about so many characters, but at least one row. And whether there
    is more before it.

    Args:
        database: where to read.
        study_id: whose trial.
        number: which trial.
        before: `LogRow.cursor` of a row: what ends right before it.
        characters: at most about so many.
    """
    table = tables.logs
    place = sa.tuple_(table.c.attempt, table.c.seq)
    query = sa.select(
        table.c.attempt,
        table.c.seq,
        table.c.stream,
        table.c.text,
        table.c.logged_at,
    ).where(table.c.trial_id == trial_id(study_id, number))
    if before is not None:
        query = query.where(place < sa.tuple_(*before))
    newest = query.order_by(table.c.attempt.desc(), table.c.seq.desc()).limit(_LOG_ROWS).subquery()
    backwards = (newest.c.attempt.desc(), newest.c.seq.desc())
    behind = sa.func.sum(sa.func.length(newest.c.text)).over(
        order_by=backwards,
    ) - sa.func.length(newest.c.text)
    measured = sa.select(newest, behind.label("behind")).subquery()
    near = sa.select(measured).where(measured.c.behind < characters)
    with database.engine.connect() as connection:
        rows = connection.execute(near.order_by(measured.c.attempt, measured.c.seq)).all()
        found = tuple(LogRow(row.attempt, row.seq, row.stream, row.text, row.logged_at) for row in rows)
        earlier = query.where(place < sa.tuple_(*found[0].cursor)).limit(1) if found else None
        return found, earlier is not None and connection.execute(
            earlier,
        ).first() is not None


def _of(
    column: sa.ColumnElement[int],
    study_id: int,
    numbers: Sequence[int] | None,
) -> sa.ColumnElement[bool]:
    if numbers is None:
        return in_study(column, study_id)
    return column == sa.any_(
        sa.cast([trial_id(study_id, number) for number in numbers], _IDS),
    )


def _points(condition: sa.ColumnElement[bool], max_points: int | None) -> sa.Select[Any]:
    table = tables.reports
    newest = (
        sa.select(
            table.c.trial_id,
            table.c.step,
            table.c.attempt,
            table.c.value,
            table.c.metrics,
            table.c.reported_at,
        )
        .ext(pg.distinct_on(table.c.trial_id, table.c.step))
        .where(condition, ~table.c.superseded)
        .order_by(table.c.trial_id, table.c.step, table.c.attempt.desc())
    )
    if max_points is None:
        return newest
    every = newest.subquery("newest")
    place = sa.func.row_number().over(partition_by=every.c.trial_id, order_by=every.c.step)
    length = sa.func.count().over(partition_by=every.c.trial_id)
    ranked = sa.select(every, place.label("place"), length.label("length")).subquery(
        "ranked",
    )
    stride = sa.func.greatest(1, (ranked.c.length + max_points - 1) // max_points)
    kept = sa.or_((ranked.c.place - 1) % stride == 0, ranked.c.place == ranked.c.length)
    return sa.select(ranked).where(kept).order_by(ranked.c.trial_id, ranked.c.step)


def _point(row: Any) -> Point:
    return Point(
        row.step,
        row.value,
        stored_numbers.load_metrics(row.metrics),
        row.attempt,
        row.reported_at,
    )


def _attempt(row: Any) -> AttemptRow:
    return AttemptRow(
        trial_number=number_of(row.trial_id),
        number=row.number,
        state=AttemptState(row.state),
        opened_at=row.opened_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        cpus=row.cpus,
        gpus=row.gpus,
        node=row.node,
        pid=row.pid,
        devices=tuple(row.devices or ()),
        stop_cause=row.stop_cause,
        failure=row.failure,
        message=row.message,
        traceback=row.traceback,
        checkpoint=row.checkpoint,
        checkpoint_step=row.checkpoint_step,
    )
