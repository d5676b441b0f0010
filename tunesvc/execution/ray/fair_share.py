"""How the jobs of one driver share a cluster: who may start a worker, and who has to end one.

Whoever is alone has all that there is, and so has everybody as long as there is room. When a job has something to run
and no room, those that hold more than their share give way: a worker of theirs ends as soon as it runs nothing. A share
is counted in the job's own slots, those that it would have alone: of two jobs that want all of it, one that asks for a
GPU gets half of the GPUs, and one that asks for CPUs half of the CPUs. What nobody below its share needs is anybody's.

Where there are fewer slots than jobs, or a slot is left over, it goes to whoever has had the least so far, in turns.

Imports no Ray. For one thread, but for `slots`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunesvc.execution.executor import NodeInfo
from tunesvc.execution.ray.ray_resources import bundle_of, fits, times_in
from tunesvc.spec import Resources
from tunesvc.util.clock import Clock, SystemClock

TURN_S = 10.0
"""A slot that changes hands does so no sooner: the worker that takes it over has to start."""
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class ShareClaim:
    """What a job could use, in its own slots."""

    slots_alone: int
    """What the cluster would hold of it if there were no other."""
    demand: int
    held: int = 0
    turns: int = 0
    """What it has had so far."""


def fair_slots(claims: Sequence[ShareClaim]) -> list[int]:
    """The slots that each may hold when all want to: max-min, one slot after the other to whoever has least of its own.

    They take up no more than the cluster, nobody gets more than it wants, and whoever wants something and gets nothing
    has had at least as much before as one that gets something.
    """
    shares, left = [0] * len(claims), 1.0
    heap = [(0.0, claim.turns, -claim.held, index) for index, claim in enumerate(claims)]
    heapq.heapify(heap)
    while heap:
        _, turns, held, index = heapq.heappop(heap)
        slots_alone = claims[index].slots_alone
        if shares[index] < min(slots_alone, claims[index].demand) and 1 / slots_alone <= left + _SLACK:
            shares[index] += 1
            left -= 1 / slots_alone
            heapq.heappush(heap, (shares[index] / slots_alone, turns, held, index))
    return shares


@dataclass(slots=True, eq=False)
class Member:
    """A job that takes part."""

    request: Resources
    schedule: Callable[[], None]
    """Called soon after there is room, or another job lacks it."""
    slots_alone: int = 1
    """What the cluster would hold of it if there were no other."""
    attempts: int = 0
    """Those that run, or wait for a worker."""
    workers: Counter[str] = field(default_factory=Counter)
    """Those that it has, by the node's address; empty for those that are still coming."""
    can_run: bool = True
    """Whether the cluster could hold any of it at all: nodes go away."""
    has_begun: bool = False
    """Whether it ever had an attempt."""
    fair_share: int = 1
    slots: int = 0
    """How many attempts it was told that it may have; 0 before it was told anything."""
    usage_s: float = 0.0
    """How long it has held the whole of the cluster, in sum."""

    @property
    def held(self) -> int:
        """Its workers."""
        return self.workers.total()

    @property
    def utilisation(self) -> float:
        """The part of the cluster that it has."""
        return self.held / self.slots_alone

    @property
    def is_starved(self) -> bool:
        """Whether it has something to run, and less than its share."""
        return self.can_run and self.attempts > self.held and self.held < self.fair_share

    @property
    def demand(self) -> int:
        """What it could use. Who has as many attempts as it may have would take more."""
        if not self.can_run:
            return 0
        may_want_all = not self.has_begun or self.attempts >= self.slots
        return self.slots_alone if may_want_all else self.attempts


class FairShares:
    """The jobs on one cluster. With one alone, all of this says yes and no without a look."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._members: list[Member] = []
        self._nodes: Sequence[NodeInfo] = ()
        self._counted_s = self._clock.now()

    @property
    def has_one_job(self) -> bool:
        """Whether there is nobody to share with."""
        return len(self._members) <= 1

    def join(self, member: Member) -> None:
        """Take part; whoever comes late has had as little as whoever has had least."""
        member.usage_s = min((other.usage_s for other in self._members), default=0.0)
        self._members = [*self._members, member]
        self.update()
        self.notify_others(member)

    def leave(self, member: Member) -> None:
        """Take part no more; the others may go on."""
        self._members = [other for other in self._members if other is not member]
        self.update()
        self.notify_others(member)

    def set_nodes(self, nodes: Sequence[NodeInfo]) -> None:
        """What the cluster has."""
        self._nodes = nodes

    def slots(self, member: Member, slots_alone: int) -> int:
        """How many attempts a job may have under way: what it would have alone, or its share and one that waits.

        The one that waits says that it would take more; were there many, their parameters would be old when they run.
        Any thread may ask.
        """
        member.slots_alone = slots_alone
        member.slots = slots_alone if self.has_one_job else max(1, min(slots_alone, member.fair_share + 1))
        return member.slots

    def update(self) -> None:
        """Share anew: something about a job has changed."""
        now, members = self._clock.now(), self._members
        passed_s, self._counted_s = now - self._counted_s, now
        for member in members:
            member.usage_s += passed_s * min(1.0, member.utilisation)
        if len(members) <= 1:
            return
        turn_s = TURN_S * max(1 / member.slots_alone for member in members)
        least_s = min((member.usage_s for member in members if member.attempts), default=0.0)
        for member in members:
            if not member.attempts:
                member.usage_s = max(member.usage_s, least_s)  # who wants nothing saves nothing up
        claims = [ShareClaim(m.slots_alone, m.demand, m.held, int(m.usage_s / turn_s)) for m in members]
        for member, fair_share in zip(members, fair_slots(claims), strict=True):
            member.fair_share = fair_share

    def notify_others(self, member: Member) -> None:
        """Have the other jobs look again: there is room, or this one lacks it."""
        for other in self._members:
            if other is not member:
                other.schedule()

    def may_start(self, member: Member) -> bool:
        """Whether a job may start one more worker. What another lacks that has less is not taken from it."""
        others = [other for other in self._members if other is not member]
        if not others:
            return True
        is_over = member.held >= member.fair_share
        if any(other.is_starved and (is_over or other.utilisation < member.utilisation) for other in others):
            return False
        return fits(self._free(), member.request)

    def should_release(self, member: Member, node: str) -> bool:
        """Whether a worker of this job that runs nothing has to end. `node`: where it is; empty while it comes up."""
        for other in self._members:
            if other is not member and other.is_starved:
                free = self._free()
                if not fits(free, other.request):
                    donors = [m for m in self._members if m is not other and self._must_give(m, free, other)]
                    return member in donors and node in self._where(free, other, donors)
        return False

    def _must_give(self, member: Member, free: Mapping[str, Mapping[str, float]], other: Member) -> bool:
        """Whoever is above its share; and all, where what is free would do but lies in pieces on several nodes."""
        if member.held > member.fair_share:
            return True
        bundle = bundle_of(other.request)  # of something: nothing always fits
        total = {name: sum(node.get(name, 0) for node in free.values()) for name in bundle}
        return times_in(total, bundle) >= other.request.workers

    def _where(self, free: Mapping[str, Mapping[str, float]], other: Member, donors: Sequence[Member]) -> Sequence[str]:
        """The nodes on which workers have to end: the one where a job that lacks room gets it first, else any."""
        everywhere = ["", *free]
        if other.request.workers > 1 or len(free) <= 1:
            return everywhere
        bundle = bundle_of(other.request)
        ending: dict[str, int] = {}
        for address, amounts in free.items():
            freed, count = dict(amounts), 0
            for donor in donors:
                for _ in range(donor.workers[address]):
                    if times_in(freed, bundle):
                        break
                    count += 1
                    for name, amount in bundle_of(donor.request).items():
                        freed[name] = freed.get(name, 0) + amount
            if times_in(freed, bundle):
                ending[address] = count
        return ["", min(ending, key=lambda address: ending[address])] if ending else everywhere

    def _free(self) -> dict[str, dict[str, float]]:
        """What our workers leave of each node; those still coming are taken to go where there is room first."""
        free = {node.address: dict(node.total) for node in self._nodes}
        for member in self._members:
            bundle = bundle_of(member.request)
            for address, count in member.workers.items() if bundle else ():
                if address in free and member.request.workers == 1:
                    _take(free[address], bundle, count)
                else:
                    for _ in range(count * member.request.workers):
                        room = [amounts for amounts in free.values() if times_in(amounts, bundle)]
                        _take((room or [*free.values()] or [{}])[0], bundle, 1)
        return free


def _take(amounts: dict[str, float], bundle: Mapping[str, float], count: int) -> None:
    for name, amount in bundle.items():
        amounts[name] = amounts.get(name, 0) - amount * count
