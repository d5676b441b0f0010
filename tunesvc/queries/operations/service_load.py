"""Load of the service at the moment: the queue, studies by state, and the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema.service_tables import submissions
from tunesvc.db.schema.states import Priority
from tunesvc.db.schema.tables import attempts, leases, studies
from tunesvc.db.submissions import waits
from tunesvc.queries.operations.shared_demand import get_cluster_total
from tunesvc.queries.sql import LIVE, seconds
from tunesvc.queries.studies import count_by_state


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """Numbers of all servers and commands on one database."""

    studies: Mapping[str, int]
    """Studies by their state as shown."""
    queued: Mapping[str, int]
    """Studies that wait for a server, by priority."""
    longest_wait_s: float
    unstartable: int
    """Waiting studies that could not be started."""
    leases: int
    """Studies with a coordinator."""
    attempts: Mapping[str, int]
    """Attempts that run or wait for resources, by state."""
    resources: Mapping[str, float]
    """Resources of the cluster by Ray's names, as coordinators saw it within the last minute."""
    used: Mapping[str, float]
    """CPUs and GPUs of running attempts, by Ray's names."""


def get_service_load(database: Database) -> ServiceLoad:
    """Return the numbers as of now."""
    with translate_unavailable(), database.engine.connect() as connection:
        waiting = list(_waiting(connection))
        live = list(_live(connection))
        held = sa.select(sa.func.count()).where(leases.c.expires_at > sa.func.now())
        return ServiceLoad(
            studies=count_by_state(connection),
            queued={name: sum(row.priority == name for row in waiting) for name in Priority},
            longest_wait_s=max((row.waited_s for row in waiting), default=0.0),
            unstartable=sum(row.has_problem for row in waiting),
            leases=connection.scalar(held) or 0,
            attempts=dict.fromkeys(map(str, LIVE), 0) | {row.state: row.number for row in live},
            resources=get_cluster_total(connection),
            used={
                "CPU": sum(row.cpus for row in live if row.state == "running"),
                "GPU": sum(row.gpus for row in live if row.state == "running"),
            },
        )


def _waiting(connection: sa.Connection) -> sa.CursorResult[tuple[str, float, bool]]:
    query = (
        sa.select(
            submissions.c.priority,
            seconds(sa.func.now() - submissions.c.queued_at).label("waited_s"),
            (submissions.c.problem != "").label("has_problem"),
        )
        .join(studies, studies.c.study_id == submissions.c.study_id)
        .where(waits())
    )
    return connection.execute(query)


def _live(connection: sa.Connection) -> sa.CursorResult[tuple[str, int, float, float]]:
    query = (
        sa.select(
            attempts.c.state,
            sa.func.count().label("number"),
            sa.func.sum(attempts.c.cpus).label("cpus"),
            sa.func.sum(attempts.c.gpus).label("gpus"),
        )
        .where(attempts.c.state.in_(LIVE))
        .group_by(attempts.c.state)
    )
    return connection.execute(query)
