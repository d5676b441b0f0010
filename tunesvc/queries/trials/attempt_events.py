"""Events of trials: attempts, decisions, curves and logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine import json_numbers as stored_numbers
from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of, trial_id
from tunesvc.db.schema.states import AttemptState
from tunesvc.queries.rows import AttemptRow, DecisionRow, LogRow, Point, ReportCurve, from_row
from tunesvc.queries.sql import DECISION_COLUMNS, in_study, is_any_of

_LOG_CHARACTERS = 100_000
"""Approximate characters of the end of a trial's output; at least one row is read."""
_LOG_ROWS = 2_000
"""Most rows of output that are read from the end."""


def list_attempts(
    database: Database,
    study_id: int,
    numbers: Sequence[int] | None = None,
) -> tuple[AttemptRow, ...]:
    """Return attempts by trial and attempt number, of the trials `numbers` or of all."""
    columns = tables.attempts.c
    query = (
        sa.select(
            columns.trial_id,
            columns.number,
            columns.state,
            columns.opened_at,
            columns.started_at,
            columns.ended_at,
            columns.cpus,
            columns.gpus,
            columns.node,
            columns.pid,
            columns.devices,
            columns.stop_cause,
            columns.failure,
            columns.message,
            columns.traceback,
            columns.checkpoint,
            columns.checkpoint_step,
        )
        .where(_of(columns.trial_id, study_id, numbers))
        .order_by(columns.trial_id, columns.number)
    )
    return tuple(_attempt(row) for row in database.rows(query))


def list_decisions(
    database: Database,
    study_id: int,
    number: int | None = None,
    *,
    after: int | None = None,
    limit: int | None = None,
) -> tuple[DecisionRow, ...]:
    """Return decisions about a trial, or all, in the order in which they were made.

    Args:
        database: Database to read.
        study_id: Study of the decisions.
        number: Number of the trial; None for decisions about the study and all trials.
        after: Last `decision_id` of the previous page.
        limit: Most decisions to return.
    """
    columns = tables.decisions.c
    query = sa.select(*DECISION_COLUMNS).where(columns.study_id == study_id)
    if number is not None:
        query = query.where(columns.trial_number == number)
    if after is not None:
        query = query.where(columns.decision_id > after)
    rows = database.rows(query.order_by(columns.decision_id).limit(limit))
    return tuple(DecisionRow(*row) for row in rows)


def get_curves(
    database: Database,
    study_id: int,
    *,
    numbers: Sequence[int] | None = None,
    max_points: int | None = None,
    since: datetime | None = None,
) -> tuple[ReportCurve, ...]:
    """Return learning curves by trial number.

    If several attempts reported a step, the curve has the newest attempt's value. It does not
    contain reports that a later attempt superseded by resuming from an earlier checkpoint.

    Args:
        database: Database to read.
        study_id: Study of the trials.
        numbers: Trials to read; all if None.
        max_points: Approximate number of points to thin each curve to; the last one is kept.
        since: Leave out what was reported before.
    """
    condition = _of(tables.reports.c.trial_id, study_id, numbers)
    if since is not None:
        condition = sa.and_(condition, tables.reports.c.reported_at >= since)
    query = _points(condition, max_points)
    rows = database.rows(query)
    curves = []
    for id_, group in groupby(rows, key=lambda row: int(row.trial_id)):
        points = tuple(_point(row) for row in group)
        curves.append(ReportCurve(number_of(id_), points))
    return tuple(curves)


def get_curve(database: Database, study_id: int, number: int) -> ReportCurve:
    """Return one trial's learning curve with every step."""
    curves = get_curves(database, study_id, numbers=[number])
    return curves[0] if curves else ReportCurve(number, ())


def list_logs(
    database: Database,
    study_id: int,
    number: int,
    *,
    attempt: int | None = None,
    after: tuple[int, int] = (0, 0),
    limit: int = 1000,
) -> tuple[LogRow, ...]:
    """Return a trial's output in order.

    Args:
        database: Database to read.
        study_id: Study of the trial.
        number: Number of the trial.
        attempt: Attempt to read; all if None.
        after: `LogRow.cursor` of the last row read.
        limit: Most rows to return.
    """
    columns = tables.logs.c
    cursor = sa.tuple_(columns.attempt, columns.seq)
    query = _select_logs(study_id, number).where(cursor > sa.tuple_(*after))
    if attempt is not None:
        query = query.where(columns.attempt == attempt)
    query = query.order_by(columns.attempt, columns.seq).limit(limit)
    return tuple(from_row(LogRow, row) for row in database.rows(query))


def get_log_end(
    database: Database,
    study_id: int,
    number: int,
    *,
    before: tuple[int, int] | None = None,
) -> tuple[tuple[LogRow, ...], bool]:
    """Return the end of a trial's output in order, and True if there is more before it.

    Args:
        database: Database to read.
        study_id: Study of the trial.
        number: Number of the trial.
        before: `LogRow.cursor` of the row that follows; None for the end of the output.
    """
    columns = tables.logs.c
    cursor = sa.tuple_(columns.attempt, columns.seq)
    query = _select_logs(study_id, number)
    if before is not None:
        query = query.where(cursor < sa.tuple_(*before))
    query = query.order_by(columns.attempt.desc(), columns.seq.desc())
    newest = query.limit(_LOG_ROWS).subquery()
    length = sa.func.length(newest.c.text)
    newest_first = (newest.c.attempt.desc(), newest.c.seq.desc())
    following = sa.func.sum(length).over(order_by=newest_first) - length
    measured = sa.select(newest, following.label("following")).subquery()
    end = (
        sa.select(measured)
        .where(measured.c.following < _LOG_CHARACTERS)
        .order_by(measured.c.attempt, measured.c.seq)
    )
    found = tuple(from_row(LogRow, row) for row in database.rows(end))
    if not found:
        return (), False
    earlier = query.where(cursor < sa.tuple_(*found[0].cursor)).limit(1)
    return found, bool(database.rows(earlier))


def _select_logs(study_id: int, number: int) -> sa.Select[Any]:
    columns = tables.logs.c
    return sa.select(
        columns.attempt,
        columns.seq,
        columns.stream,
        columns.text,
        columns.logged_at,
    ).where(columns.trial_id == trial_id(study_id, number))


def _of(
    column: sa.ColumnElement[int],
    study_id: int,
    numbers: Sequence[int] | None,
) -> sa.ColumnElement[bool]:
    if numbers is None:
        return in_study(column, study_id)
    return is_any_of(column, [trial_id(study_id, number) for number in numbers])


def _points(condition: sa.ColumnElement[bool], max_points: int | None) -> sa.Select[Any]:
    columns = tables.reports.c
    newest = (
        sa.select(
            columns.trial_id,
            columns.step,
            columns.attempt,
            columns.value,
            columns.metrics,
            columns.reported_at,
        )
        .ext(pg.distinct_on(columns.trial_id, columns.step))
        .where(condition, ~columns.superseded)
        .order_by(columns.trial_id, columns.step, columns.attempt.desc())
    )
    if max_points is None:
        return newest
    points = newest.subquery("newest")
    position = sa.func.row_number().over(partition_by=points.c.trial_id, order_by=points.c.step)
    length = sa.func.count().over(partition_by=points.c.trial_id)
    ranked = sa.select(
        points,
        position.label("position"),
        length.label("length"),
    ).subquery("ranked")
    stride = sa.func.greatest(1, (ranked.c.length + max_points - 1) // max_points)
    is_last = ranked.c.position == ranked.c.length
    thinned = sa.or_((ranked.c.position - 1) % stride == 0, is_last)
    return sa.select(ranked).where(thinned).order_by(ranked.c.trial_id, ranked.c.step)


def _point(row: Any) -> Point:
    return from_row(Point, row, metrics=stored_numbers.load_metrics(row.metrics))


def _attempt(row: Any) -> AttemptRow:
    return from_row(
        AttemptRow,
        row,
        trial_number=number_of(row.trial_id),
        state=AttemptState(row.state),
        devices=tuple(row.devices or ()),
    )
