"""Studies: the list, and one by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from tunesvc import policy
from tunesvc.insights.rows import Counts, Objective, StudyRow, StudyView
from tunesvc.insights.sql import first_trial_id, is_candidate, state_shown
from tunesvc.spec import Budget
from tunesvc.store import studies as stored
from tunesvc.store.database import Database
from tunesvc.store.schema import attempts, leases, reports, trials
from tunesvc.store.schema import studies as table
from tunesvc.store.states import StudyState


def study_names(database: Database, prefix: str = "", limit: int = 200) -> tuple[str, ...]:
    """Names that begin with `prefix`, newest first."""
    query = (
        sa.select(table.c.name)
        .where(table.c.name.startswith(prefix, autoescape=True))
        .order_by(table.c.study_id.desc())
        .limit(limit)
    )
    with database.engine.connect() as connection:
        return tuple(connection.execute(query).scalars())


def studies(database: Database, limit: int = 200) -> tuple[StudyRow, ...]:
    """Studies, newest first."""
    query = _overview().order_by(table.c.study_id.desc()).limit(limit)
    with database.engine.connect() as connection:
        return tuple(_study_row(row) for row in connection.execute(query))


def study(database: Database, name: str) -> StudyView:
    """One study.

    Raises:
        StudyNotFound: there is none; the text suggests the nearest name.
    """
    with database.engine.connect() as connection:
        record = stored.find(connection, name)
        row = connection.execute(_overview().where(table.c.study_id == record.study_id)).one()
    shown = _study_row(row)
    return StudyView(
        **{field.name: getattr(shown, field.name) for field in fields(shown)},
        spec=record.spec,
        source_text=record.source_text,
        source_dir=record.source_dir,
    )


def _overview() -> sa.Select[Any]:
    """One row per study; every figure comes from an index range of that study's own rows."""
    counted, held, minimum, maximum = _counts(), _gpu_hours(), _extreme(sa.func.min), _extreme(sa.func.max)
    owner = sa.case((leases.c.expires_at > sa.func.now(), leases.c.owner)).label("coordinator")
    return (
        sa.select(
            table.c.study_id,
            table.c.name,
            table.c.state,
            table.c.reason,
            table.c.directions,
            table.c.spec["metrics"].label("metrics"),
            table.c.spec["budget"].label("budget"),
            table.c.active_s,
            table.c.created_at,
            table.c.ended_at,
            owner,
            counted,
            held.c.gpu_hours,
            sa.case((table.c.directions[1] == "maximize", maximum), else_=minimum).label("best_value"),
        )
        .select_from(table)
        .outerjoin(leases, leases.c.study_id == table.c.study_id)
        .join(counted, sa.true())
        .join(held, sa.true())
    )


def _counts() -> sa.sql.selectable.LateralFromClause:
    shown = (
        sa.select(state_shown().label("state"))
        .where(trials.c.study_id == table.c.study_id)
        .correlate(table)
        .lateral("shown")
    )

    def of(state: str, name: str) -> sa.Label[int]:
        return sa.func.count().filter(shown.c.state == state).label(name)

    return (
        sa.select(
            of("waiting", "waiting"),
            of("running", "running"),
            of("paused", "paused"),
            of("complete", "complete"),
            of("pruned", "pruned"),
            of("fail", "failed"),
        )
        .select_from(shown)
        .lateral("counted")
    )


def _gpu_hours() -> sa.sql.selectable.LateralFromClause:
    """GPU time held. An attempt whose coordinator is gone counts until its last report."""
    last_word = (
        sa.select(sa.func.max(reports.c.reported_at))
        .where(reports.c.trial_id == attempts.c.trial_id, reports.c.attempt == attempts.c.number)
        .correlate(attempts)
        .scalar_subquery()
    )
    now = sa.case((leases.c.expires_at > sa.func.now(), sa.func.now()), else_=last_word)
    until = sa.func.coalesce(attempts.c.ended_at, now, attempts.c.started_at)
    seconds = sa.extract("epoch", until - attempts.c.started_at)
    total = sa.func.coalesce(sa.func.sum(attempts.c.gpus * sa.cast(seconds, sa.Double)), 0.0) / 3600
    first = first_trial_id(table.c.study_id)
    return (
        sa.select(total.label("gpu_hours"))
        .where(attempts.c.trial_id >= first, attempts.c.trial_id < first_trial_id(table.c.study_id + 1))
        .where(attempts.c.gpus > 0, attempts.c.started_at.is_not(None))
        .correlate(table, leases)
        .lateral("held")
    )


def _extreme(choose: Any) -> sa.ScalarSelect[float]:
    """The least or greatest first value of a study's candidates, where it has one objective."""
    value = trials.c["values"][1]
    return (
        sa.select(choose(value))
        .where(trials.c.study_id == table.c.study_id, *is_candidate())
        .where(sa.func.cardinality(table.c.directions) == 1)
        .correlate(table)
        .scalar_subquery()
    )


def _study_row(row: Any) -> StudyRow:
    counts = Counts(row.waiting, row.running, row.complete, row.pruned, row.failed, row.paused)
    budget = None if row.budget is None else Budget.model_validate(row.budget)
    usage = policy.Usage(counts.total, counts.running + counts.waiting, row.active_s, row.gpu_hours)
    return StudyRow(
        study_id=row.study_id,
        name=row.name,
        state=StudyState(row.state),
        reason=row.reason,
        objectives=_objectives(row.directions, row.metrics),
        counts=counts,
        best_value=row.best_value,
        budget=budget,
        fraction=0.0 if budget is None else policy.fraction_spent(budget, usage),
        active_s=row.active_s,
        gpu_hours=row.gpu_hours,
        coordinator=row.coordinator,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _objectives(directions: Sequence[str], metrics: Sequence[Any] | None) -> tuple[Objective, ...]:
    if metrics is not None:
        names = [metric["name"] for metric in metrics]
    else:
        names = ["value"] if len(directions) == 1 else [f"value_{i}" for i in range(len(directions))]
    return tuple(
        Objective(name, "maximize" if direction == "maximize" else "minimize")
        for name, direction in zip(names, directions, strict=True)
    )
