"""Allocation of a cluster's slots to the studies that servers run. Pure.

Projects share the cluster in proportion to their weights, the users of a project share its part,
and the studies of a user share theirs equally. A share is counted in the resource of which a study
needs most (dominant resource fairness, Ghodsi et al., NSDI 2011), so that a study of GPUs and one
of CPUs can be compared. Slots are given one by one to the party that has least for its weight; what
one cannot use is free for the others.

A remainder that cannot be divided, such as one GPU for two users, takes turns (deficit round robin,
Shreedhar and Varghese, 1995): a party that has received more for its weight, by whole turns, begins
with a debt of almost one slot. So over time all get their share, within one turn and one trial.

A priority decides between the studies of one user, the highest first. An urgent study comes before
everything else; what it gets counts as its user's part. Limits of users and projects always hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesvc.db.schema.states import Priority
from tunesvc.queries.operations.shared_demand import Party, PartyLimits, StudyDemand

Amounts = Mapping[str, float]
"""Amounts of resources by Ray's names."""
TURN_S = 30.0
"""Shortest turn with a slot: each one costs the start of a worker."""
_SLACK = 1e-6
_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True)
class Allocation:
    """Number of slots that a study may use."""

    slots: int
    reason: str = ""
    """Reason why it gets fewer than it could use; empty if it gets all."""


def allocate(
    total: Amounts,
    demands: Sequence[StudyDemand],
    projects: Mapping[str, Party],
    users: Mapping[str, Party],
) -> dict[int, Allocation]:
    """Return the allocation of each study, by its id.

    Together they fit into `total`, and no limit is exceeded. A party that `projects` or `users`
    lacks has weight 1 and no limits.

    Args:
        total: resources of the whole cluster.
        demands: studies with their demand, in the order in which they wait.
        projects: projects by name.
        users: users by name.
    """
    sharing = _Sharing(total, demands, projects, users)
    urgent = [one for one in demands if one.priority is Priority.URGENT]
    sharing.fill(urgent)
    sharing.fill(demands)
    return {
        one.study_id: Allocation(sharing.slots[one.study_id], sharing.reason(one))
        for one in demands
    }


@dataclass(slots=True)
class _Used:
    """Resources that a party has got so far."""

    share: float = 0.0
    gpus: float = 0.0
    trials: int = 0


class _Sharing:
    """The allocation while it is made."""

    def __init__(
        self,
        total: Amounts,
        demands: Sequence[StudyDemand],
        projects: Mapping[str, Party],
        users: Mapping[str, Party],
    ) -> None:
        self._total = total
        self._projects = projects
        self._users = users
        self._free = dict(total)
        self._used: dict[tuple[str, str], _Used] = {}
        self.slots = {one.study_id: 0 for one in demands}
        self._refusals: dict[int, str] = {}
        turn = TURN_S * max(map(self._cost, demands), default=0.0) or math.inf
        self._turns = {one.study_id: self._turns_of(one, turn) for one in demands}

    def fill(self, demands: Sequence[StudyDemand]) -> None:
        """Give slots to the studies until none of them can use another one."""
        open_demands = list(demands)
        while open_demands:
            fewest = self._fewest_turns(open_demands)
            one = min(open_demands, key=lambda one: self._order(one, fewest))
            refusal = self._refusal(one)
            if refusal is None:
                self._give(one)
                continue
            self._refusals[one.study_id] = refusal
            open_demands.remove(one)

    def reason(self, one: StudyDemand) -> str:
        """Return why a study does not get all that it wants; empty if it does."""
        return "" if self.slots[one.study_id] >= one.wanted else self._refusals[one.study_id]

    def _order(
        self,
        one: StudyDemand,
        fewest: Mapping[tuple[str, ...], int],
    ) -> tuple[float, float, int, float, int]:
        """Return the key by which the next slot is given: the smallest one gets it."""
        project = self._party(self._projects, one.project)
        user = self._party(self._users, one.user)
        debts = [
            self._cost(one) * _debt(turns - fewest[group])
            for group, turns in zip(_groups(one), self._turns[one.study_id], strict=True)
        ]
        return (
            (self._of("project", one.project).share + debts[0]) / project.weight,
            (self._of(f"user of {one.project}", one.user).share + debts[1]) / user.weight,
            -_RANKS[one.priority],
            self.slots[one.study_id] * self._cost(one) + debts[2],
            -one.held,
        )

    def _fewest_turns(self, demands: Sequence[StudyDemand]) -> Mapping[tuple[str, ...], int]:
        """Return the fewest turns that a party of each group has had."""
        fewest: dict[tuple[str, ...], int] = {}
        for one in demands:
            for group, turns in zip(_groups(one), self._turns[one.study_id], strict=True):
                fewest[group] = min(turns, fewest.get(group, turns))
        return fewest

    def _turns_of(self, one: StudyDemand, turn: float) -> tuple[int, int, int]:
        """Return the numbers of turns that its project, its user there, and a study have had."""
        weights = (
            self._party(self._projects, one.project).weight,
            self._party(self._users, one.user).weight,
            1.0,
        )
        by_project, by_user, by_study = (
            math.floor(self._part(received) / (turn * weight))
            for received, weight in zip(one.received, weights, strict=True)
        )
        return by_project, by_user, by_study

    def _refusal(self, one: StudyDemand) -> str | None:
        """Return why a study gets no more; None if it may have one more slot."""
        if self.slots[one.study_id] >= one.wanted:
            return ""
        for kind, known, name in (
            ("project", self._projects, one.project),
            ("user", self._users, one.user),
        ):
            limits = self._party(known, name).limits
            if reason := _exceeds(limits, self._of(kind, name), one):
                return f"{kind} {name}: {reason}"
        for name, amount in one.slot.items():
            if amount > self._free.get(name, 0.0) + _SLACK:
                return self._full(one, name)
        return None

    def _full(self, one: StudyDemand, resource: str) -> str:
        if one.slot[resource] > self._total.get(resource, 0.0) + _SLACK:
            return f"the cluster has {self._total.get(resource, 0.0):g} {resource} in all"
        if self._has_all_of(one, resource):
            total = self._total[resource]
            return f"no more of its trials fit into the cluster's {total:g} {resource}s"
        return f"other studies have the right to the {resource}s now"

    def _has_all_of(self, one: StudyDemand, resource: str) -> bool:
        """Return True if no other study has got anything of a resource."""
        got = self._total[resource] - self._free[resource]
        return got <= self.slots[one.study_id] * one.slot[resource] + _SLACK

    def _give(self, one: StudyDemand) -> None:
        self.slots[one.study_id] += 1
        for name, amount in one.slot.items():
            self._free[name] = self._free.get(name, 0.0) - amount
        parties = (
            ("project", one.project),
            ("user", one.user),
            (f"user of {one.project}", one.user),
        )
        for kind, name in parties:
            used = self._of(kind, name)
            used.share += self._cost(one)
            used.gpus += one.slot.get("GPU", 0.0)
            used.trials += 1

    def _cost(self, one: StudyDemand) -> float:
        """Return the part of the cluster that one slot is, in the resource that it needs most."""
        return self._part(one.slot)

    def _part(self, amounts: Amounts) -> float:
        """Return amounts as a part of the cluster, in the resource of which it is the largest."""
        parts = [
            amount / self._total[name] for name, amount in amounts.items() if self._total.get(name)
        ]
        return max(parts, default=0.0)

    def _of(self, kind: str, name: str) -> _Used:
        return self._used.setdefault((kind, name), _Used())

    @staticmethod
    def _party(known: Mapping[str, Party], name: str) -> Party:
        return known.get(name) or Party(name)


def _groups(one: StudyDemand) -> tuple[tuple[str, ...], ...]:
    """Return the groups in which its project, its user and a study take turns."""
    return (), (one.project,), (one.project, one.user)


def _debt(turns: int) -> float:
    """Return with which part of a slot a party begins that has had more turns than another one.

    Almost a whole one, so that it moves no more than the remainder.
    """
    return 1 - 0.01 / (1 + turns) if turns else 0.0


def _exceeds(limits: PartyLimits, used: _Used, one: StudyDemand) -> str:
    """Return the limit that one more slot would exceed; empty if none."""
    if limits.exhausted:
        return limits.exhausted
    if limits.trials is not None and used.trials + 1 > limits.trials:
        return f"at most {limits.trials} trials at a time"
    gpus = one.slot.get("GPU", 0.0)
    if limits.gpus is not None and gpus and used.gpus + gpus > limits.gpus + _SLACK:
        return f"at most {limits.gpus:g} GPUs at a time"
    return ""


def slots_to_free(
    total: Amounts,
    allocations: Mapping[int, Allocation],
    demands: Sequence[StudyDemand],
) -> dict[int, int]:
    """Return how many running trials of each study have to make room for urgent ones.

    Only an urgent study takes slots from running trials; the others wait until one ends. Of the
    studies that hold more than their allocation, those with the lowest priority give first, and of
    these the one that holds most beyond it.
    """
    needed = _missing(total, allocations, demands)
    excess = {
        one.study_id: one.running - allocations[one.study_id].slots
        for one in demands
        if one.priority is not Priority.URGENT
    }
    freed: dict[int, int] = {}
    while True:
        givers = [
            one
            for one in demands
            if excess.get(one.study_id, 0) > 0 and _is_useful(one.slot, needed)
        ]
        if not givers:
            return freed
        giver = min(givers, key=lambda one: (_RANKS[one.priority], -excess[one.study_id]))
        excess[giver.study_id] -= 1
        freed[giver.study_id] = freed.get(giver.study_id, 0) + 1
        for name, amount in giver.slot.items():
            needed[name] = needed.get(name, 0.0) - amount


def _missing(
    total: Amounts,
    allocations: Mapping[int, Allocation],
    demands: Sequence[StudyDemand],
) -> dict[str, float]:
    """Return the resources that urgent studies still lack, without those that are free."""
    missing = {name: -amount for name, amount in total.items()}
    lacking = set[str]()
    for one in demands:
        lack = 0
        if one.priority is Priority.URGENT:
            lack = max(0, allocations[one.study_id].slots - one.running)
        for name, amount in one.slot.items():
            missing[name] = missing.get(name, 0.0) + (one.running + lack) * amount
            if lack:
                lacking.add(name)
    return {name: amount for name, amount in missing.items() if name in lacking}


def _is_useful(slot: Amounts, needed: Amounts) -> bool:
    return any(amount and needed.get(name, 0.0) > _SLACK for name, amount in slot.items())


def grantable(
    allocations: Mapping[int, Allocation],
    demands: Sequence[StudyDemand],
    projects: Mapping[str, Party],
    users: Mapping[str, Party],
) -> dict[int, int]:
    """Return how many slots each study may use right now, by its id.

    A study that has to give slots up may still run as many trials as before. So another one may use
    a limit of both only as far as these leave room.
    """
    rooms = {
        **{
            ("project", name): _Room.of(party, demands, "project")
            for name, party in projects.items()
        },
        **{("user", name): _Room.of(party, demands, "user") for name, party in users.items()},
    }
    slots = {}
    for one in demands:
        occupied = max(one.granted, one.held)
        growth = allocations[one.study_id].slots - occupied
        for key in (("project", one.project), ("user", one.user)):
            if growth > 0 and key in rooms:
                growth = min(growth, rooms[key].times(one))
        for key in (("project", one.project), ("user", one.user)):
            if growth > 0 and key in rooms:
                rooms[key].take(one, growth)
        slots[one.study_id] = occupied + growth
    return slots


@dataclass(slots=True)
class _Room:
    """Part of a user's or project's limits that its studies do not occupy."""

    gpus: float
    trials: float

    @classmethod
    def of(cls, party: Party, demands: Sequence[StudyDemand], kind: str) -> _Room:
        """Return the room that is left, `kind` being the attribute that names the party."""
        own = [one for one in demands if getattr(one, kind) == party.name]
        trials = sum(max(one.granted, one.held) for one in own)
        gpus = sum(max(one.granted, one.held) * one.slot.get("GPU", 0.0) for one in own)
        limits = party.limits
        return cls(
            math.inf if limits.gpus is None else limits.gpus - gpus,
            math.inf if limits.trials is None else limits.trials - trials,
        )

    def times(self, one: StudyDemand) -> int:
        """Return how many more slots of a study fit, at most what it wants."""
        most = min(self.trials, one.wanted)
        if gpus := one.slot.get("GPU", 0.0):
            most = min(most, self.gpus / gpus + _SLACK)
        return max(0, math.floor(most))

    def take(self, one: StudyDemand, slots: int) -> None:
        """Use room for slots of a study."""
        self.trials -= slots
        self.gpus -= slots * one.slot.get("GPU", 0.0)
