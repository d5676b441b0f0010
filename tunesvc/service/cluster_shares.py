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
    get_cluster_free,
    get_releases,
)
from tunesvc.queries.rows import StudyRow
from tunesvc.queries.studies import list_queue, names_by_id
from tunesvc.service.fair_allocation import Allocation, allocate

_POSTPONED_MAX = 1_000


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
        free = get_cluster_free(connection)
        releases = get_releases(connection)
    allocations: Mapping[int, Allocation] = {}
    if demand.total:
        allocations = allocate(demand.total, demand.studies, demand.projects, demand.users)
    visible = names_by_id(database, [one.study_id for one in demand.studies], among)
    shares = _shares(demand, allocations, free, releases)
    found = [share for share in shares if share.study_id in visible]
    found += _postponed(list_queue(database, _POSTPONED_MAX, among), demand)
    found.sort(key=lambda share: (share.queued_at, share.study_id))
    return ClusterShares(demand.total, tuple(found))


def _shares(
    demand: ClusterDemand,
    allocations: Mapping[int, Allocation],
    free: Mapping[str, float],
    releases: Sequence[float],
) -> Iterator[StudyShare]:
    """Yield each study's share; the n-th study without a slot gets the n-th that is released."""
    upcoming = iter(releases)
    for one in demand.studies:
        allocation = allocations.get(one.study_id)
        may_begin = allocation is not None and allocation.slots > 0
        likely_s = None
        if not one.running and may_begin:
            likely_s = next(upcoming, None)
        reason = "no server has seen the cluster yet"
        if allocation is not None:
            reason = _used_up(one, allocation, demand, free) or allocation.reason
        yield StudyShare(
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


def _used_up(
    one: StudyDemand,
    allocation: Allocation,
    demand: ClusterDemand,
    free: Mapping[str, float],
) -> str:
    """Return why a study cannot use its slots: what it needs is in use; empty if that is free."""
    if one.running >= min(allocation.slots, one.wanted):
        return ""
    for name, amount in one.slot.items():
        if free.get(name, 0.0) >= amount:
            continue
        total = demand.total.get(name, 0.0)
        used = total - free.get(name, 0.0)
        ours = sum(other.running * other.slot.get(name, 0.0) for other in demand.studies)
        return (
            f"{used:g} of the cluster's {total:g} {name}s are in use, "
            f"{min(ours, used):g} of them by trials of submitted studies"
        )
    return ""


def _postponed(queue: Sequence[StudyRow], demand: ClusterDemand) -> Iterator[StudyShare]:
    """Yield the studies that could not be started, until a server tries again."""
    known = {one.study_id for one in demand.studies}
    for row in queue:
        if row.submission is None or row.study_id in known:
            continue
        yield StudyShare(
            study_id=row.study_id,
            study=row.name,
            project=row.project,
            user=row.submission.submitted_by,
            priority=row.submission.priority,
            is_waiting=True,
            queued_at=row.submission.queued_at,
            running=0,
            slots=0,
            wanted=None,
            reason=row.submission.reason,
            likely_s=None,
        )
