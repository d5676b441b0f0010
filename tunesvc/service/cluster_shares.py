"""Shares of the cluster as people see them: who uses what, and why a study waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema.states import Priority
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.queries.operations.shared_demand import (
    UNLIMITED,
    ClusterDemand,
    StudyDemand,
    get_cluster_demand,
    get_releases,
)
from tunesvc.queries.studies import names_by_id
from tunesvc.service.fair_allocation import Allocation, allocate


@dataclass(frozen=True, slots=True)
class StudyShare:
    """Part of the cluster that a submitted study uses and may use."""

    study_id: int
    study: str
    project: str
    """Empty for a study without a project."""
    user: str
    priority: Priority
    is_waiting: bool
    """True if no server runs it yet."""
    queued_at: datetime
    running: int
    """Trials that run now."""
    slots: int | None
    """Trials that may run at a time; None while no server has seen the cluster."""
    wanted: int | None
    """Trials that could run at a time; None without a limit of its own."""
    reason: str
    """Reason why it may run fewer than it could; empty if there is none."""
    likely_s: float | None
    """Time until it probably gets its first slot; None if it has one, or if it is unknown."""


@dataclass(frozen=True, slots=True)
class ClusterShares:
    """Shares of all studies that a user may view, in the order in which they were queued."""

    total: Mapping[str, float]
    """Resources of the cluster by Ray's names; empty while no server has seen it."""
    studies: tuple[StudyShare, ...]


def get_shares(database: Database, among: StudyScope = ALL_STUDIES) -> ClusterShares:
    """Return the shares as a server would now compute them."""
    with translate_unavailable(), database.engine.connect() as connection:
        demand = get_cluster_demand(connection)
        releases = get_releases(connection)
    allocations: Mapping[int, Allocation] = {}
    if demand.total:
        allocations = allocate(demand.total, demand.studies, demand.projects, demand.users)
    visible = names_by_id(database, [one.study_id for one in demand.studies], among)
    shares = _shares(demand, allocations, releases)
    return ClusterShares(
        demand.total,
        tuple(share for study_id, share in shares if study_id in visible),
    )


def _shares(
    demand: ClusterDemand,
    allocations: Mapping[int, Allocation],
    releases: Sequence[float],
) -> Iterator[tuple[int, StudyShare]]:
    """Yield each study's share; the n-th study without a slot gets the n-th that is released."""
    upcoming = iter(releases)
    for one in demand.studies:
        allocation = allocations.get(one.study_id)
        may_begin = allocation is not None and allocation.slots > 0
        likely_s = None
        if not one.running and may_begin:
            likely_s = next(upcoming, None)
        yield one.study_id, _share(one, allocation, likely_s)


def _share(
    one: StudyDemand,
    allocation: Allocation | None,
    likely_s: float | None,
) -> StudyShare:
    reason = "no server has seen the cluster yet" if allocation is None else allocation.reason
    return StudyShare(
        study_id=one.study_id,
        study=one.name,
        project=one.project,
        user=one.user,
        priority=one.priority,
        is_waiting=not one.is_attended,
        queued_at=one.queued_at,
        running=one.running,
        slots=None if allocation is None else allocation.slots,
        wanted=None if one.wanted >= UNLIMITED else one.wanted,
        reason=reason,
        likely_s=likely_s,
    )
