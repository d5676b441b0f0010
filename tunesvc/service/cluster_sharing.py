"""Shares out the cluster among the studies of all servers.

Every server computes the allocation of all studies from the same rows, and applies it to those that
it runs, so no server leads. Grants are recorded before a study may use them, and taken back only
after it can no longer use them. So limits hold exactly, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tunesvc.coordinator.slot_grant import SlotGrant
from tunesvc.db import submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import Priority
from tunesvc.queries.operations.shared_demand import (
    ClusterDemand,
    StudyDemand,
    get_cluster_demand,
)
from tunesvc.service.fair_allocation import Allocation, allocate, grantable, slots_to_free


@dataclass(frozen=True, slots=True)
class Sharing:
    """Result of sharing out the cluster once."""

    grants: Mapping[int, SlotGrant]
    """Grant of each own study, by its id."""
    startable: tuple[int, ...]
    """Ids of waiting studies with a slot, in the order in which they should begin."""


class ClusterSharing:
    """One server's part in sharing. Belongs to one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._applied: dict[int, int] = {}
        """Slots that each own study may use since the last call."""

    def update(self, own: Collection[int]) -> Sharing:
        """Share out the cluster.

        The caller applies the grants before it calls again.

        Args:
            own: ids of the studies that this server runs.

        Raises:
            DatabaseUnavailable: nothing was changed.
        """
        with self._database.engine.begin() as connection:
            submissions.lock_grants(connection)
            demand = get_cluster_demand(connection)
            if not demand.total:
                return _without_cluster(demand, own)
            allocations = allocate(demand.total, demand.studies, demand.projects, demand.users)
            slots = grantable(allocations, demand.studies, demand.projects, demand.users)
            recorded = {
                # A smaller grant was applied when this was called before.
                one.study_id: max(slots[one.study_id], self._applied.get(one.study_id, 0))
                for one in demand.studies
                if one.study_id in own
            }
            submissions.grant(connection, recorded)
        grants = _grants(demand, allocations, slots)
        self._applied = {study_id: slots[study_id] for study_id in recorded}
        return Sharing(
            {study_id: grants[study_id] for study_id in recorded},
            _startable(demand, slots),
        )


def _without_cluster(demand: ClusterDemand, own: Collection[int]) -> Sharing:
    """Return no limits while no cluster was seen: the coordinator that starts first sees it."""
    waiting = _by_priority(one for one in demand.studies if not one.is_attended)
    return Sharing(dict.fromkeys(own, SlotGrant()), waiting[:1])


def _grants(
    demand: ClusterDemand,
    allocations: Mapping[int, Allocation],
    slots: Mapping[int, int],
) -> dict[int, SlotGrant]:
    freed = slots_to_free(demand.total, allocations, demand.studies)
    urgent = [one.name for one in demand.studies if one.priority is Priority.URGENT]
    reason = f"{', '.join(map(repr, urgent))} is urgent"
    grants = {}
    for one in demand.studies:
        ceiling = None
        if one.study_id in freed:
            ceiling = one.running - freed[one.study_id]
        grants[one.study_id] = SlotGrant(slots[one.study_id], ceiling, reason if freed else "")
    return grants


def _startable(demand: ClusterDemand, slots: Mapping[int, int]) -> tuple[int, ...]:
    return _by_priority(
        one for one in demand.studies if not one.is_attended and slots[one.study_id] > 0
    )


def _by_priority(waiting: Iterable[StudyDemand]) -> tuple[int, ...]:
    """Return ids of studies, the most urgent first; of one priority in the given order."""
    ranks = list(Priority)
    ordered = sorted(waiting, key=lambda one: -ranks.index(one.priority))
    return tuple(one.study_id for one in ordered)
