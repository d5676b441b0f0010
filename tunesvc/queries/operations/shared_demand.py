"""Demand for a cluster that servers share: what each study could use, and what its parties may.

Read by the supervisors, which share out the cluster, and by the queue that people see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.people.shares import PRICES
from tunesvc.db.schema.service_tables import projects, submissions, users
from tunesvc.db.schema.states import AttemptState, Priority, StudyState
from tunesvc.db.schema.tables import attempts, nodes, studies, trials
from tunesvc.db.submissions import may_be_taken
from tunesvc.execution.ray.ray_resources import bundle_of
from tunesvc.queries.operations.received_resources import Claimant, get_received
from tunesvc.queries.sql import LIVE, first_trial_id, is_attended, seconds, study_key
from tunesvc.spec import Prices, Resources

UNLIMITED = 1_000_000
"""Slots that a study without a limit of its own could use."""
AGENTS_MAX = 1_000
"""The same on agents only: they are not counted here."""
STALE_S = 60.0
"""Nodes that no coordinator has recorded for this long are not counted."""


@dataclass(frozen=True, slots=True)
class PartyLimits:
    """Most that a user or a project may use at a time. None: no limit."""

    gpus: float | None = None
    trials: int | None = None
    """Running trials."""
    exhausted: str = ""
    """Reason why nothing of it may run, such as spent GPU hours; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Party:
    """A user or a project."""

    name: str
    weight: float = 1.0
    limits: PartyLimits = field(default_factory=PartyLimits)


@dataclass(frozen=True, slots=True)
class StudyDemand:
    """A study that could use slots of the cluster."""

    study_id: int
    project: str
    """Empty for a study without a project."""
    user: str
    slot: Mapping[str, float]
    """Resources of one trial, all its workers together, by Ray's names."""
    wanted: int
    """Number of slots that it could use now."""
    priority: Priority = Priority.NORMAL
    running: int = 0
    """Number of its trials that use resources now."""
    held: int = 0
    """The same, with those that may begin at any moment."""
    granted: int = 0
    """Number of slots that it was granted last."""
    name: str = ""
    queued_at: datetime = datetime.min
    received: tuple[Mapping[str, float], ...] = ({}, {}, {})
    """Resource seconds that its project, its user in the project, and the study have received since
    all that share with them have been there."""
    is_attended: bool = False
    """True if a server runs it; otherwise it waits for one."""


@dataclass(frozen=True, slots=True)
class ClusterDemand:
    """All that the sharing of a cluster depends on."""

    total: Mapping[str, float]
    """Resources of the whole cluster by Ray's names; empty while no coordinator has seen it."""
    studies: tuple[StudyDemand, ...]
    """Submitted studies that run or may be taken, in the order in which they were queued."""
    projects: Mapping[str, Party]
    users: Mapping[str, Party]


def get_cluster_demand(connection: sa.Connection) -> ClusterDemand:
    """Return the demand of all submitted studies that should run."""
    return ClusterDemand(
        total=get_cluster_total(connection),
        studies=_with_received(connection, _studies(connection)),
        projects=_parties(connection, projects, studies.c.project_id == projects.c.project_id),
        users=_parties(connection, users, submissions.c.submitted_by == users.c.name),
    )


def get_releases(connection: sa.Connection) -> list[float]:
    """Return the expected times until running trials of submitted studies end, in seconds.

    Each is expected to take as long as the mean of those of its study that have ended.
    """
    ran_s = seconds(attempts.c.ended_at - attempts.c.started_at)
    study = study_key(attempts.c.trial_id).label("study_id")
    mean = (
        sa.select(study, sa.func.avg(ran_s).label("mean_s"))
        .where(attempts.c.state == AttemptState.FINISHED)
        .where(attempts.c.ended_at > sa.func.now() - sa.text("interval '1 day'"))
        .group_by(study)
        .subquery()
    )
    left_s = sa.func.greatest(0.0, mean.c.mean_s - seconds(sa.func.now() - attempts.c.started_at))
    query = (
        sa.select(left_s)
        .select_from(attempts)
        .join(mean, mean.c.study_id == study_key(attempts.c.trial_id))
        .join(submissions, submissions.c.study_id == mean.c.study_id)
        .where(attempts.c.state == AttemptState.RUNNING)
        .order_by(left_s)
        .limit(1_000)
    )
    return [float(left) for left in connection.scalars(query)]


def get_cluster_total(connection: sa.Connection) -> dict[str, float]:
    """Return the resources of all nodes that coordinators have seen lately, by Ray's names."""
    return _sum_of_nodes(connection, nodes.c.total)


def get_cluster_free(connection: sa.Connection) -> dict[str, float]:
    """Return what of them was free when a coordinator saw it, other programs considered."""
    return _sum_of_nodes(connection, nodes.c.free)


def _sum_of_nodes(connection: sa.Connection, column: sa.Column[Any]) -> dict[str, float]:
    seen = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, STALE_S)
    newest = (
        sa.select(column)
        .ext(pg.distinct_on(nodes.c.key))
        .join(studies, studies.c.study_id == nodes.c.study_id)
        .where(nodes.c.seen_at > seen, _is_agents_only().is_not(True))
        .order_by(nodes.c.key, nodes.c.seen_at.desc())
    )
    total: dict[str, float] = {}
    for amounts in connection.scalars(newest):
        for name, amount in amounts.items():
            total[name] = total.get(name, 0.0) + float(amount)
    return total


def _studies(connection: sa.Connection) -> Sequence[StudyDemand]:
    of_study = study_key(attempts.c.trial_id) == studies.c.study_id
    is_running = attempts.c.state == AttemptState.RUNNING
    live = sa.select(sa.func.count()).where(of_study, attempts.c.state.in_(LIVE))
    was_cancelled = sa.and_(trials.c.state == "fail", trials.c.started_at.is_(None))
    has_ended = trials.c.state.in_(["complete", "pruned", "fail"])
    ended = sa.select(sa.func.count()).where(
        trials.c.study_id == studies.c.study_id, has_ended, ~was_cancelled
    )
    query = (
        sa.select(
            studies.c.study_id,
            studies.c.name,
            studies.c.spec,
            sa.func.coalesce(projects.c.name, "").label("project"),
            submissions.c.submitted_by,
            submissions.c.priority,
            submissions.c.queued_at,
            submissions.c.slots.label("granted"),
            live.where(is_running).correlate(studies).scalar_subquery().label("running"),
            live.correlate(studies).scalar_subquery().label("held"),
            ended.correlate(studies).scalar_subquery().label("ended"),
            is_attended().label("attended"),
        )
        .join(submissions, submissions.c.study_id == studies.c.study_id)
        .outerjoin(projects, projects.c.project_id == studies.c.project_id)
        .where(studies.c.state.in_([StudyState.CREATED, StudyState.RUNNING]))
        .where(sa.or_(is_attended(), may_be_taken()))
        .order_by(submissions.c.queued_at, studies.c.study_id)
    )
    return [_demand(row) for row in connection.execute(query)]


def _with_received(
    connection: sa.Connection,
    demands: Sequence[StudyDemand],
) -> tuple[StudyDemand, ...]:
    claimants = [
        Claimant(one.study_id, one.project, one.user, one.queued_at)
        for one in demands
        if one.wanted
    ]
    received = get_received(connection, claimants)
    return tuple(replace(one, received=received.get(one.study_id, one.received)) for one in demands)


def _demand(row: Any) -> StudyDemand:
    resources = Resources.model_validate(row.spec.get("resources") or {})
    budget = row.spec.get("budget") or {}
    is_agents_only = row.spec.get("agents") == "only"
    wanted = row.spec.get("parallelism") or (AGENTS_MAX if is_agents_only else UNLIMITED)
    if budget.get("trials") is not None:
        wanted = min(wanted, max(0, budget["trials"] - row.ended))
    return StudyDemand(
        study_id=row.study_id,
        project=row.project,
        user=row.submitted_by,
        # agents are no part of the cluster
        slot={} if is_agents_only else _slot(resources),
        wanted=max(wanted, row.held),
        priority=Priority(row.priority),
        running=row.running,
        held=row.held,
        granted=row.granted,
        name=row.name,
        queued_at=row.queued_at,
        is_attended=row.attended,
    )


def _slot(resources: Resources) -> dict[str, float]:
    return {name: amount * resources.workers for name, amount in bundle_of(resources).items()}


def _is_agents_only() -> sa.ColumnElement[bool]:
    is_only: sa.ColumnElement[bool] = studies.c.spec["agents"].as_string() == "only"
    return is_only


def _parties(
    connection: sa.Connection,
    table: sa.Table,
    belongs: sa.ColumnElement[bool],
) -> dict[str, Party]:
    rows = connection.execute(sa.select(table.c.name, table.c.weight, table.c.limits)).all()
    metered = [row.name for row in rows if {"gpu_hours", "cost"} & row.limits.keys()]
    used = _hours(connection, table, belongs, metered) if metered else {}
    return {row.name: _party(row, *used.get(row.name, (0.0, 0.0))) for row in rows}


def _hours(
    connection: sa.Connection,
    table: sa.Table,
    belongs: sa.ColumnElement[bool],
    names: Sequence[str],
) -> dict[str, tuple[float, float]]:
    """Return the CPU hours and GPU hours that parties have used so far, by name."""
    until = sa.func.coalesce(attempts.c.ended_at, sa.func.now())
    hours = seconds(until - attempts.c.started_at) / 3600
    query = (
        sa.select(
            table.c.name,
            sa.func.coalesce(sa.func.sum(attempts.c.cpus * hours), 0.0),
            sa.func.coalesce(sa.func.sum(attempts.c.gpus * hours), 0.0),
        )
        .select_from(studies)
        .join(submissions, submissions.c.study_id == studies.c.study_id)
        .join(table, belongs)
        .join(
            attempts,
            sa.and_(
                attempts.c.trial_id >= first_trial_id(studies.c.study_id),
                attempts.c.trial_id < first_trial_id(studies.c.study_id + 1),
            ),
        )
        .where(table.c.name.in_(names), attempts.c.started_at.is_not(None))
        .group_by(table.c.name)
    )
    return {name: (cpu, gpu) for name, cpu, gpu in connection.execute(query)}


def _party(row: Any, cpu_hours: float, gpu_hours: float) -> Party:
    limits: Mapping[str, float] = row.limits
    gpu_hour, cpu_hour = (limits.get(price, 0.0) for price in PRICES)
    cost = Prices(gpu_hour=gpu_hour, cpu_hour=cpu_hour).cost(cpu_hours, gpu_hours)
    exhausted = ""
    if gpu_hours >= limits.get("gpu_hours", float("inf")):
        exhausted = f"its {limits['gpu_hours']:g} GPU hours are used up"
    elif cost >= limits.get("cost", float("inf")):
        exhausted = f"its {limits['cost']:g} of cost are used up"
    most = limits.get("trials")
    return Party(
        row.name,
        row.weight,
        PartyLimits(limits.get("gpus"), None if most is None else int(most), exhausted),
    )
