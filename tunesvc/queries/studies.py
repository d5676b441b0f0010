"""Studies as rows: lists of them, and one by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa

from tunesvc import policy
from tunesvc.db import study_records as stored
from tunesvc.db.engine.database import Database, checked_name
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.schema.service_tables import projects, submissions
from tunesvc.db.schema.states import Priority, StudyState
from tunesvc.db.schema.tables import attempts, commands, leases, study_attrs, trials
from tunesvc.db.schema.tables import studies as table
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.db.submissions import queue_order, waits
from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import (
    Counts,
    Labels,
    Objective,
    StudyRow,
    StudyStatus,
    StudyView,
    SubmissionRow,
    from_row,
)
from tunesvc.queries.sql import (
    first_trial_id,
    first_value,
    held_hours,
    is_attended,
    is_candidate,
    state_shown,
)
from tunesvc.spec import Budget, Evaluation, Prices
from tunesvc.spec.goals import goal_named
from tunesvc.util.optuna_keys import METRIC_NAMES
from tunesvc.util.suggestions import nearest

LABELS_MAX = 200
"""Most owners and most tags to choose from."""
_COUNTED = [field.name for field in fields(Counts)]
"""States of trials that are counted."""


def list_study_names(
    database: Database,
    prefix: str = "",
    limit: int = 200,
    among: StudyScope = ALL_STUDIES,
) -> tuple[str, ...]:
    """Return study names that begin with `prefix`, the newest first."""
    query = (
        sa.select(table.c.name)
        .where(table.c.name.startswith(prefix, autoescape=True), among.condition())
        .order_by(table.c.study_id.desc())
        .limit(limit)
    )
    return database.scalars(query)


class StudyFilter(TypedDict, total=False):
    """Filter of studies: all given conditions must hold."""

    search: str
    """Text in the name, owner or tags, ignoring case."""
    states: Sequence[StudyStatus]
    """Any of these states; any state if empty."""
    tags: Sequence[str]
    """All of these tags."""
    owner: str | None
    among: StudyScope
    """Studies that the reader may view; all by default."""
    before: int | None
    """Older than the study of this id: the last one of the previous page."""


def list_studies(
    database: Database,
    limit: int = 200,
    **only: Unpack[StudyFilter],
) -> tuple[StudyRow, ...]:
    """Return at most `limit` studies, the newest first."""
    query = _filtered(_overview(), only).order_by(table.c.study_id.desc()).limit(limit)
    return tuple(_study_row(row) for row in database.rows(query))


def list_queue(
    database: Database,
    limit: int = 200,
    among: StudyScope = ALL_STUDIES,
    *,
    after: int = 0,
) -> tuple[StudyRow, ...]:
    """Return at most `limit` studies that wait for a server, the next one after a position first.

    Their positions count all studies, also those that the reader may not view.
    """
    query = _filtered(_overview(), {"states": [StudyStatus.QUEUED], "among": among})
    query = query.where(sa.literal_column("places.position") > after)
    query = query.order_by(sa.column("position")).limit(limit)
    return tuple(_study_row(row) for row in database.rows(query))


def count_studies(database: Database, **only: Unpack[StudyFilter]) -> int:
    """Count the studies."""
    query = _filtered(sa.select(sa.func.count()).select_from(table), only)
    (count,) = database.scalars(query)
    return int(count)


def count_by_state(connection: sa.Connection) -> dict[str, int]:
    """Count the studies by their state as shown."""
    state = _status().label("state")
    query = sa.select(state, sa.func.count()).select_from(table).group_by(state)
    found = {str(name): int(count) for name, count in connection.execute(query)}
    return {state: found.get(state, 0) for state in StudyStatus}


def _filtered(query: sa.Select[Any], only: StudyFilter) -> sa.Select[Any]:
    tags = table.c.tags
    if search := only.get("search"):
        texts = (table.c.name, table.c.owner, sa.func.array_to_string(tags, "\n"))
        searched = sa.func.concat_ws("\n", *texts)
        query = query.where(searched.icontains(search, autoescape=True))
    if wanted := only.get("tags"):
        query = query.where(tags.contains(sa.cast(list(wanted), tags.type)))
    if (owner := only.get("owner")) is not None:
        query = query.where(table.c.owner == owner)
    query = query.where(only.get("among", ALL_STUDIES).condition())
    if (before := only.get("before")) is not None:
        query = query.where(table.c.study_id < before)
    if states := only.get("states"):
        query = query.where(_status().in_(states))
    return query


def _status() -> sa.ColumnElement[str]:
    """Return a study's `StudyStatus`."""
    is_submitted = sa.exists().where(submissions.c.study_id == table.c.study_id).correlate(table)
    is_interrupted = sa.and_(table.c.state == StudyState.RUNNING, ~is_attended())
    return sa.case(
        (sa.and_(waits(), is_submitted), StudyStatus.QUEUED),
        (is_interrupted, StudyStatus.INTERRUPTED),
        else_=table.c.state,
    )


def list_labels(database: Database, among: StudyScope = ALL_STUDIES) -> Labels:
    """Return all owners and tags by name, of the studies that the reader may view."""
    owners = sa.select(table.c.owner.label("label")).where(table.c.owner != "")
    tags = sa.select(sa.func.unnest(table.c.tags).label("label"))
    found = []
    for query in (owners, tags):
        distinct = query.where(among.condition()).distinct().order_by("label").limit(LABELS_MAX)
        found.append(database.scalars(distinct))
    return Labels(*found)


def get_study(
    database: Database,
    name: str,
    among: StudyScope = ALL_STUDIES,
) -> StudyView:
    """Return a study by its name.

    Raises:
        StudyNotFound: the reader may view no such study; the text suggests the nearest name.
    """
    if among != ALL_STUDIES:
        _check_visible(database, name, among)
    with database.engine.connect() as connection:
        return _view(connection, stored.find(connection, name))


def _check_visible(database: Database, name: str, among: StudyScope) -> None:
    """Refuse another study as one that does not exist, and suggest no other either."""
    checked_name(name, "the study's name")
    query = sa.select(table.c.study_id).where(table.c.name == name, among.condition())
    if not database.rows(query):
        near = nearest(name, list_study_names(database, limit=1000, among=among))
        hint = f"did you mean {near!r}?" if near else "`tune ls` lists the studies."
        raise StudyNotFound(f"there is no study named {name!r}; {hint}")


def get_study_id(
    database: Database,
    name: str,
    among: StudyScope = ALL_STUDIES,
) -> int:
    """Return the id of a study, without reading its spec.

    Raises:
        StudyNotFound: the reader may view no such study; the text suggests the nearest name.
    """
    checked_name(name, "the study's name")
    found = database.autocommit.first(_NAMED, name=name)
    if found is not None and among.includes(found.project_id):
        return int(found.study_id)
    return get_study(database, name, among).study_id  # the error, or one made just now


_NAMED = PreparedStatement(
    "SELECT study_id, project_id FROM studies WHERE name = CAST(%(name)s AS text)"
)


def get_study_by_id(database: Database, study_id: int) -> StudyView:
    """Return a study by its id.

    Raises:
        StudyNotFound: there is no such study.
    """
    with database.engine.connect() as connection:
        return _view(connection, stored.get(connection, study_id))


def names_by_id(
    database: Database,
    ids: Collection[int],
    among: StudyScope = ALL_STUDIES,
) -> dict[int, str]:
    """Return the names of studies that exist and that the reader may view."""
    query = sa.select(table.c.study_id, table.c.name).where(table.c.study_id.in_(ids))
    rows = database.rows(query.where(among.condition()).order_by(table.c.study_id)) if ids else ()
    return {row.study_id: row.name for row in rows}


def names_and_projects(
    database: Database,
    ids: Collection[int],
) -> dict[int, tuple[str, int | None]]:
    """Return the names and projects of studies that exist."""
    query = sa.select(table.c.study_id, table.c.name, table.c.project_id)
    rows = database.rows(query.where(table.c.study_id.in_(ids)).order_by(table.c.study_id))
    return {row.study_id: (row.name, row.project_id) for row in rows}


def project_of(database: Database, study_id: int) -> int | None:
    """Return the project of a study; None without one, or if there is no such study."""
    if not 0 <= study_id < 2**31:
        return None
    row = database.autocommit.first(_PROJECT, study_id=study_id)
    return None if row is None else row.project_id


_PROJECT = PreparedStatement(
    "SELECT project_id FROM studies WHERE study_id = CAST(%(study_id)s AS bigint)"
)


def _view(connection: sa.Connection, record: stored.StudyRecord) -> StudyView:
    row = connection.execute(_one_overview(), {"study": record.study_id}).one_or_none()
    if row is None:  # deleted between the two queries
        raise StudyNotFound(f"study {record.name!r} has just been deleted")
    study = _study_row(row)
    return StudyView(
        **{field.name: getattr(study, field.name) for field in fields(study)},
        spec=record.spec,
        source_text=record.source_text,
        source_dir=record.source_dir,
        provenance=row.provenance or {},
    )


@cache
def _one_overview() -> sa.Select[Any]:
    query = _overview().add_columns(submissions.c.provenance)
    return query.where(table.c.study_id == sa.bindparam("study", type_=sa.BigInteger))


@cache  # building it takes longer than running it
def _overview() -> sa.Select[Any]:
    """Select one row per study. Each figure reads an index range of that study's own rows."""
    counts, usage, priced = _counts(), _gpu_hours(), _cpu_hours()
    minimum = _extreme(ascending=True)
    maximum = _extreme(ascending=False)
    best_value = sa.case((table.c.directions[1] == "maximize", maximum), else_=minimum)
    coordinator = sa.case((leases.c.expires_at > sa.func.now(), leases.c.owner))
    is_lost = sa.and_(leases.c.expires_at <= sa.func.now(), ~leases.c.released)
    places = _places()
    return (
        sa.select(
            table.c.study_id,
            table.c.name,
            table.c.state,
            table.c.reason,
            table.c.directions,
            table.c.spec["metrics"].label("metrics"),
            table.c.spec["evaluation"].label("evaluation"),
            _optuna_names(),
            table.c.spec["budget"].label("budget"),
            table.c.spec["cost"].label("prices"),
            table.c.active_s,
            table.c.created_at,
            table.c.ended_at,
            table.c.owner,
            sa.func.coalesce(projects.c.name, "").label("project"),
            table.c.tags,
            table.c.note,
            coordinator.label("coordinator"),
            _closing(),
            counts,
            usage.c.gpu_hours,
            priced.c.cpu_hours,
            best_value.label("best_value"),
            *_SUBMISSION_COLUMNS,
            places.c.position,
            sa.case((is_lost, leases.c.owner)).label("lost_coordinator"),
        )
        .select_from(table)
        .outerjoin(leases, leases.c.study_id == table.c.study_id)
        .outerjoin(projects, projects.c.project_id == table.c.project_id)
        .outerjoin(submissions, submissions.c.study_id == table.c.study_id)
        .outerjoin(places, places.c.study_id == table.c.study_id)
        .join(counts, sa.true())
        .join(usage, sa.true())
        .join(priced, sa.true())
    )


_SUBMISSION_COLUMNS = (
    submissions.c.snapshot,
    submissions.c.priority,
    submissions.c.submitted_by,
    submissions.c.submitted_at,
    submissions.c.queued_at,
    submissions.c.problem,
    submissions.c.retry_at,
)


def _places() -> sa.Subquery:
    """Select the position of each study in the queue."""
    position = sa.func.row_number().over(order_by=queue_order()).label("position")
    return (
        sa.select(submissions.c.study_id, position)
        .join(table, table.c.study_id == submissions.c.study_id)
        .where(waits())
        .subquery("places")
    )


def _counts() -> sa.sql.selectable.LateralFromClause:
    shown = (
        sa.select(state_shown().label("state"), trials.c.started_at)
        .where(trials.c.study_id == table.c.study_id)
        .correlate(table)
        .offset(0)  # otherwise Postgres computes the state again for each of the counts below
        .lateral("shown")
    )

    number = sa.func.count()
    state = shown.c.state
    counts = [number.filter(state == name).label(name) for name in _COUNTED]
    cancelled = number.filter(state == "stopped", shown.c.started_at.is_(None))
    counts.append(cancelled.label("cancelled"))
    return sa.select(*counts).select_from(shown).lateral("counts")


def _gpu_hours() -> sa.sql.selectable.LateralFromClause:
    """Sum up GPU hours. An attempt whose coordinator is gone counts until its last report."""
    query = _held_hours(attempts.c.gpus, "gpu_hours")
    return query.where(attempts.c.gpus > 0).lateral("usage")  # the condition of an index


def _cpu_hours() -> sa.sql.selectable.LateralFromClause:
    """Sum up the hours of cores, only of studies that pay for them: no index has these."""
    price = table.c.spec["cost"]["cpu_hour"].as_float()
    return _held_hours(attempts.c.cpus, "cpu_hours").where(price > 0).lateral("priced")


def _held_hours(amount: sa.ColumnElement[float], name: str) -> sa.Select[Any]:
    first = first_trial_id(table.c.study_id)
    return (
        sa.select(held_hours(amount, leases.c.expires_at > sa.func.now()).label(name))
        .where(
            attempts.c.trial_id >= first,
            attempts.c.trial_id < first_trial_id(table.c.study_id + 1),
        )
        .where(attempts.c.started_at.is_not(None))
        .correlate(table, leases)
    )


def _extreme(ascending: bool) -> sa.ScalarSelect[float]:
    """Select the least or greatest value of a study with one objective. Reads one index entry."""
    value = first_value()
    return (
        sa.select(value)
        .where(trials.c.study_id == table.c.study_id, value.is_not(None), *is_candidate())
        .where(sa.func.cardinality(table.c.directions) == 1)
        .order_by(value.asc() if ascending else value.desc())
        .limit(1)
        .correlate(table)
        .scalar_subquery()
    )


def _closing() -> sa.Label[str | None]:
    """Select the last pause or stop that its coordinator has not completed."""
    return (
        sa.select(commands.c.kind)
        .where(commands.c.study_id == table.c.study_id, commands.c.done_at.is_(None))
        .where(commands.c.kind.in_(["pause", "stop"]))
        .order_by(commands.c.command_id.desc())
        .limit(1)
        .correlate(table)
        .scalar_subquery()
        .label("closing")
    )


def _optuna_names() -> sa.Label[str | None]:
    """Select the objectives' names that were set through Optuna, as JSON."""
    return (
        sa.select(study_attrs.c.value)
        .where(study_attrs.c.study_id == table.c.study_id)
        .where(study_attrs.c.kind == "system", study_attrs.c.name == METRIC_NAMES)
        .correlate(table)
        .scalar_subquery()
        .label("optuna_names")
    )


def _study_row(row: Any) -> StudyRow:
    counts = from_row(Counts, row)
    budget = None if row.budget is None else Budget.model_validate(row.budget)
    unfinished = counts.running + counts.queued + counts.interrupted + counts.waiting
    prices = None if row.prices is None else Prices.model_validate(row.prices)
    cost = None if prices is None else prices.cost(row.cpu_hours, row.gpu_hours)
    usage = policy.Usage(
        counts.total - row.cancelled,
        unfinished,
        row.active_s,
        row.gpu_hours,
        cost or 0.0,
    )
    submission = None
    if row.priority is not None:
        submission = from_row(SubmissionRow, row, priority=Priority(row.priority))
    return from_row(
        StudyRow,
        row,
        state=StudyStatus.of(StudyState(row.state), row.coordinator, submission),
        submission=submission,
        objectives=_objectives(row),
        counts=counts,
        budget=budget,
        prices=prices,
        cost=cost,
        fraction=0.0 if budget is None else policy.fraction_spent(budget, usage),
        tags=tuple(row.tags),
    )


def _objectives(row: Any) -> tuple[Objective, ...]:
    if row.metrics is not None:
        names = [metric["name"] for metric in row.metrics]
    elif row.optuna_names is not None:
        names = json.loads(row.optuna_names)
    elif len(row.directions) == 1:
        names = ["value"]
    else:
        names = [f"value_{i}" for i in range(len(row.directions))]
    goals = map(goal_named, row.directions)
    step = _step_name(row.evaluation)
    return tuple(Objective(name, goal, step) for name, goal in zip(names, goals, strict=True))


def _step_name(written: Any) -> str:
    evaluation = None if written is None else Evaluation.model_validate(written)
    if evaluation is None or not evaluation.is_stepwise:
        return "step"
    return evaluation.noun.removesuffix("s")
