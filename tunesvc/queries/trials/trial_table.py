"""Trials as rows: lists of them, one in detail, and the best."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import study_of, trial_id
from tunesvc.db.schema.tables import (
    reports,
    studies,
    trial_annotations,
    trial_attrs,
    trial_params,
)
from tunesvc.db.schema.tables import trials as trials_table
from tunesvc.queries.rows import TrialDetail, TrialRow, from_row
from tunesvc.queries.sql import (
    duration_s,
    first_value,
    held_hours,
    is_any_of,
    is_attended,
    is_candidate,
    is_feasible,
    newest_report,
    running_s,
    state_shown,
)
from tunesvc.queries.trials.attempt_events import list_attempts, list_decisions
from tunesvc.queries.trials.trial_metrics import attrs_of
from tunesvc.search.tracking.pareto import pareto_mask
from tunesvc.space.directions import orient_each
from tunesvc.spec import ParamValue, Prices

Order = Literal["number", "newest", "best"]
"""Order of trials: by number, by number with the newest first, or by the first value.

For other orders, in pages, see `pagination`.
"""

_FETCH = 2_000
"""Trials per query for parameters."""


def list_trials(
    database: Database,
    study_id: int,
    *,
    states: Iterable[str] = (),
    limit: int | None = None,
    after: int | None = None,
    order: Order = "number",
) -> tuple[TrialRow, ...]:
    """Return trials with their parameters.

    Args:
        database: Database to read.
        study_id: Study of the trials.
        states: States to include; all if empty.
        limit: Most trials to return.
        after: Last number of the previous page; for the orders `number` and `newest`.
        order: Order of the trials.
    """
    query = _rows().where(trials_table.c.study_id == study_id)
    if in_states := list(states):
        query = query.where(state_shown().in_(in_states))
    number = trials_table.c.number
    if after is not None:
        query = query.where(number < after if order == "newest" else number > after)
    with database.engine.connect() as connection:
        by = _ordering(order, _maximize(connection, study_id))
        rows = connection.execute(query.order_by(*by).limit(limit)).all()
        return _with_details(connection, rows)


def list_best_trials(
    database: Database,
    study_id: int,
    limit: int | None = None,
) -> tuple[TrialRow, ...]:
    """Return the best complete, feasible trials; with several objectives, the Pareto front.

    Args:
        database: Database to read.
        study_id: Study of the trials.
        limit: Most trials to return. If None, one trial, or the whole front.
    """
    with database.engine.connect() as connection:
        directions = _directions(connection, study_id)
        if len(directions) == 1:
            maximize = directions[0] == "maximize"
            numbers = _best_numbers(
                connection,
                study_id,
                limit or 1,
                maximize=maximize,
            )
            return rows_of(database, study_id, numbers)
        front = _front(connection, study_id, directions)[:limit]
        query = _rows().where(trials_table.c.trial_id.in_(front)).order_by(trials_table.c.number)
        return _with_details(connection, connection.execute(query).all())


def rows_of(
    database: Database,
    study_id: int,
    numbers: Sequence[int],
) -> tuple[TrialRow, ...]:
    """Return the trials of these numbers in this order, without numbers that do not exist."""
    ids = [trial_id(study_id, number) for number in numbers]
    with database.engine.connect() as connection:
        query = _rows().where(is_any_of(trials_table.c.trial_id, ids))
        rows = _with_details(connection, connection.execute(query).all())
    by_number = {row.number: row for row in rows}
    return tuple(by_number[number] for number in numbers if number in by_number)


def get_trial(database: Database, study_id: int, number: int) -> TrialDetail | None:
    """Return a trial with its attempts, decisions and attributes;

    None if there is no such number.
    """
    query = _rows().where(trials_table.c.trial_id == trial_id(study_id, number))
    with database.engine.connect() as connection:
        rows = _with_details(connection, connection.execute(query).all())
        if not rows:
            return None
        row = rows[0]
        attrs = connection.execute(
            sa.select(trial_attrs.c.kind, trial_attrs.c.name, trial_attrs.c.value)
            .where(trial_attrs.c.trial_id == row.trial_id)
            .order_by(trial_attrs.c.kind, trial_attrs.c.name)
        ).all()
    return TrialDetail(
        row=row,
        attempts=list_attempts(database, study_id, numbers=[number]),
        decisions=list_decisions(database, study_id, number=number),
        user_attrs=_attrs_of_kind("user", attrs),
        system_attrs=_attrs_of_kind("system", attrs),
    )


def _attrs_of_kind(kind: str, attrs: Sequence[Any]) -> dict[str, Any]:
    return {attr.name: json.loads(attr.value) for attr in attrs if attr.kind == kind}


def get_distributions(
    database: Database,
    study_id: int,
    number: int,
) -> dict[str, BaseDistribution]:
    """Return the distributions of a trial's parameters."""
    query = sa.select(trial_params.c.name, trial_params.c.distribution).where(
        trial_params.c.trial_id == trial_id(study_id, number),
    )
    return {row.name: distribution_of(row.distribution) for row in database.rows(query)}


def _rows() -> sa.Select[Any]:
    executions = _executions()
    newest = _newest_report()
    return (
        sa.select(
            trials_table.c.trial_id,
            trials_table.c.number,
            state_shown().label("state"),
            trials_table.c["values"].label("results"),
            trials_table.c.started_at,
            trials_table.c.ended_at,
            duration_s(executions.c.ran_s).label("duration_s"),
            is_feasible().label("feasible"),
            executions.c.attempts,
            executions.c.failure,
            executions.c.cpu_hours,
            executions.c.gpu_hours,
            studies.c.spec["cost"].label("prices"),
            newest.c.step.label("last_step"),
            newest.c.value.label("last_value"),
            trial_annotations.c.tags,
            trial_annotations.c.note,
        )
        .select_from(trials_table)
        .join(studies, studies.c.study_id == trials_table.c.study_id)
        .outerjoin(
            trial_annotations,
            trial_annotations.c.trial_id == trials_table.c.trial_id,
        )
        .outerjoin(executions, sa.true())
        .outerjoin(newest, sa.true())
    )


def _executions() -> sa.sql.selectable.LateralFromClause:
    """Select a trial's number of attempts, their running time, the last one's failure, and the
    resources that they held."""
    columns = tables.attempts.c
    of_trial = columns.trial_id == trials_table.c.trial_id
    newest = columns.number.desc()
    is_run = is_attended(studies)
    failures = sa.func.array_agg(pg.aggregate_order_by(columns.failure, newest))
    return (
        sa.select(
            sa.func.count().label("attempts"),
            sa.type_coerce(failures, sa.ARRAY(sa.Text))[1].label("failure"),
            running_s().label("ran_s"),
            held_hours(columns.cpus, is_run).label("cpu_hours"),
            held_hours(columns.gpus, is_run).label("gpu_hours"),
        )
        .where(of_trial)
        .correlate(trials_table, studies)
        .lateral("executions")
    )


def _newest_report() -> sa.sql.selectable.LateralFromClause:
    newest = newest_report(reports.c.step, reports.c.value)
    return newest.correlate(trials_table).lateral("newest")


def _ordering(order: Order, maximize: bool) -> tuple[sa.ColumnElement[Any], ...]:
    number = trials_table.c.number.asc()
    match order:
        case "number":
            return (number,)
        case "newest":
            return (trials_table.c.number.desc(),)
        case "best":
            return (*_best_first(maximize), number)


def _best_first(maximize: bool) -> tuple[sa.ColumnElement[Any], ...]:
    value: Any = trials_table.c["values"][1]
    # Postgres sorts NaN above all numbers; here it comes last in both directions.
    is_nan = (value == sa.literal(float("nan"), sa.Double)).asc().nulls_last()
    return (is_nan, (value.desc() if maximize else value.asc()).nulls_last())


def _directions(connection: sa.Connection, study_id: int) -> list[str]:
    query = sa.select(studies.c.directions).where(studies.c.study_id == study_id)
    return list(connection.execute(query).scalar() or ["minimize"])


def _maximize(connection: sa.Connection, study_id: int) -> bool:
    return _directions(connection, study_id)[0] == "maximize"


def _best_numbers(
    connection: sa.Connection,
    study_id: int,
    limit: int,
    *,
    maximize: bool,
) -> list[int]:
    """Return the numbers of the best candidates. Reads the first entries of an index."""
    value = first_value()
    number = trials_table.c.number
    query = sa.select(number).where(
        trials_table.c.study_id == study_id,
        value.is_not(None),
        *is_candidate(),
    )
    by = (value.desc() if maximize else value.asc(), number)
    return list(connection.execute(query.order_by(*by).limit(limit)).scalars())


def _front(
    connection: sa.Connection,
    study_id: int,
    directions: Sequence[str],
) -> list[int]:
    """Return the ids of the candidates that no other candidate dominates."""
    rows = connection.execute(
        sa.select(trials_table.c.trial_id, trials_table.c["values"].label("results"))
        .where(trials_table.c.study_id == study_id, *is_candidate([study_id]))
        .order_by(trials_table.c.number)
    ).all()
    if not rows:
        return []
    values = np.array([row.results for row in rows], dtype=float)
    on_front = pareto_mask(values * orient_each(directions))
    return [row.trial_id for row, is_on in zip(rows, on_front, strict=True) if is_on]


def _with_details(connection: sa.Connection, rows: Sequence[Any]) -> tuple[TrialRow, ...]:
    if not rows:
        return ()
    ids = [row.trial_id for row in rows]
    params = _params(connection, ids)
    attrs = attrs_of(connection, study_of(ids[0]), ids)
    trials = []
    for row in rows:
        own = attrs[row.trial_id]
        prices = None if row.prices is None else Prices.model_validate(row.prices)
        trial = from_row(
            TrialRow,
            row,
            values=None if row.results is None else tuple(row.results),
            params=params.get(row.trial_id, {}),
            duration_s=None if row.state == "interrupted" else row.duration_s,
            cost=None if prices is None else prices.cost(row.cpu_hours, row.gpu_hours),
            tags=tuple(row.tags or ()),
            note=row.note or "",
            metrics=own.metrics,
            constraints=own.constraints,
            attrs=own.attrs,
        )
        trials.append(trial)
    return tuple(trials)


def _params(
    connection: sa.Connection,
    ids: Sequence[int],
) -> dict[int, dict[str, ParamValue]]:
    """Return external values by trial id, in the order of their suggestion."""
    found: dict[int, dict[str, ParamValue]] = {}
    for start in range(0, len(ids), _FETCH):
        chunk = ids[start : start + _FETCH]
        query = (
            sa.select(
                trial_params.c.trial_id,
                trial_params.c.name,
                trial_params.c.value,
                trial_params.c.distribution,
            )
            .where(is_any_of(trial_params.c.trial_id, chunk))
            .order_by(trial_params.c.trial_id, trial_params.c.position)
        )
        for row in connection.execute(query):
            value = distribution_of(row.distribution).to_external_repr(row.value)
            found.setdefault(row.trial_id, {})[row.name] = value
    return found
