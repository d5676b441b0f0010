"""Fair sharing of a cluster: which job of a driver may start a worker, or must end one.

A job may use the whole cluster while it is alone or there is room. If a job has attempts but no
room, jobs with more than their fair share release workers: each of these ends as soon as it is
idle. A share is counted in the job's own slots, the number of workers that it could have alone. For
example, of two jobs that want the whole cluster, one gets half of the GPUs for its GPU workers, the
other half of the CPUs for its CPU workers. Capacity that no job needs for its fair share is free
for all.

If there are fewer slots than jobs, or a slot is left over, jobs take turns: the one with the least
usage is next.

Imports no Ray. Belongs to one thread, except for `slots`.
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
"""Minimum length of a turn: a new worker has to start in each."""
GRACE_S = 2.0
"""Time for which a job keeps the demand of an attempt that has ended: its next one is on its way.

Without it, a job that runs one trial at a time would lose its worker after each trial.
"""
_SLACK = 1e-9
Amounts = Mapping[str, Mapping[str, float]]
"""Amounts of resources by node address and Ray's name."""


@dataclass(frozen=True, slots=True)
class ShareClaim:
    """A job's demand, in its own slots."""

    slots_alone: int
    """Number of its workers that the cluster could hold without other jobs."""
    demand: int
    held: int = 0
    turns: int = 0
    """Turns that it has had so far."""


def fair_slots(claims: Sequence[ShareClaim]) -> list[int]:
    """Return each job's slots by max-min fairness.

    Each slot goes to the job with the smallest part of its own slots.

    All slots together fit into the cluster, and no job gets more than its demand. A job with a
    demand that gets nothing has had at least as many turns as any job that gets something.
    """
    shares = [0] * len(claims)
    left = 1.0  # part of the cluster
    heap = [(0.0, claim.turns, -claim.held, index) for index, claim in enumerate(claims)]
    heapq.heapify(heap)
    while heap:
        _, turns, held, index = heapq.heappop(heap)
        slots_alone = claims[index].slots_alone
        wants_more = shares[index] < min(slots_alone, claims[index].demand)
        if wants_more and 1 / slots_alone <= left + _SLACK:
            shares[index] += 1
            left -= 1 / slots_alone
            utilisation = shares[index] / slots_alone
            heapq.heappush(heap, (utilisation, turns, held, index))
    return shares


@dataclass(slots=True, eq=False)
class Member:
    """A job that shares the cluster."""

    request: Resources
    schedule: Callable[[], None]
    """Called soon after there is room, or another job needs room."""
    slots_alone: int = 1
    """Number of its workers that the cluster could hold without other jobs."""
    attempts: int = 0
    """Attempts that run or wait for a worker."""
    recent_attempts: int = 0
    """The most attempts within the last `GRACE_S`."""
    fewer_since_s: float | None = None
    """Since when it has had fewer attempts than `recent_attempts`. None if it has not."""
    workers: Counter[str] = field(default_factory=Counter)
    """Number of its workers by the node's address. The address is empty for starting workers."""
    can_run: bool = True
    """False if the cluster cannot hold a single worker, after a node has left."""
    has_begun: bool = False
    """True if it ever had an attempt."""
    fair_share: int = 1
    slots: int = 0
    """Number of attempts that `FairShares.slots` last allowed. 0 before the first call."""
    usage_s: float = 0.0
    """Utilisation integrated over time: 1.0 is the whole cluster for one second."""

    @property
    def held(self) -> int:
        """Number of its workers."""
        return self.workers.total()

    @property
    def utilisation(self) -> float:
        """Part of the cluster that it holds."""
        return self.held / self.slots_alone

    @property
    def is_starved(self) -> bool:
        """True if it has attempts to run and less than its fair share."""
        has_waiting = self.can_run and self.attempts > self.held
        return has_waiting and self.held < self.fair_share

    @property
    def demand(self) -> int:
        """Number of slots that it could use. A job with all its allowed attempts may want more."""
        if not self.can_run:
            return 0
        may_want_all = not self.has_begun or self.attempts >= self.slots
        return self.slots_alone if may_want_all else self.recent_attempts

    def remember_attempts(self, now_s: float) -> None:
        """Raise `recent_attempts` at once, and lower it when the grace time is over."""
        if self.attempts < self.recent_attempts and self.fewer_since_s is None:
            self.fewer_since_s = now_s
        is_over = self.fewer_since_s is not None and now_s - self.fewer_since_s >= GRACE_S
        if self.attempts >= self.recent_attempts or is_over:
            self.recent_attempts = self.attempts
            self.fewer_since_s = None


class FairShares:
    """The jobs on one cluster. A single job gets everything without any computation."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._members: list[Member] = []
        self._nodes: Sequence[NodeInfo] = ()
        self._counted_s = self._clock.now()

    @property
    def has_one_job(self) -> bool:
        """True if there is no other job to share with."""
        return len(self._members) <= 1

    def join(self, member: Member) -> None:
        """Add a job. It starts with the smallest usage of the present jobs."""
        member.usage_s = min((other.usage_s for other in self._members), default=0.0)
        self._members = [*self._members, member]
        self.update()
        self.notify_others(member)

    def leave(self, member: Member) -> None:
        """Remove a job and let the others use its share."""
        self._members = [other for other in self._members if other is not member]
        self.update()
        self.notify_others(member)

    def set_nodes(self, nodes: Sequence[NodeInfo]) -> None:
        """Set the cluster's nodes."""
        self._nodes = nodes

    def slots(self, member: Member, slots_alone: int) -> int:
        """Return how many attempts a job may launch: all that fit, or its fair share and one more.

        The additional one shows that the job would use more. Not several, because their parameters
        would be old by the time they run. Any thread may call this.
        """
        member.slots_alone = slots_alone
        member.slots = slots_alone
        if not self.has_one_job:
            member.slots = max(1, min(slots_alone, member.fair_share + 1))
        return member.slots

    def update(self) -> None:
        """Compute the fair shares again after a change of a job."""
        self._count_usage()
        members = self._members
        for member in members:
            member.remember_attempts(self._counted_s)
        if len(members) <= 1:
            return
        turn_s = TURN_S * max(1 / member.slots_alone for member in members)
        claims = []
        for member in members:
            turns = int(member.usage_s / turn_s)
            claims.append(
                ShareClaim(
                    member.slots_alone,
                    member.demand,
                    member.held,
                    turns,
                )
            )
        for member, fair_share in zip(members, fair_slots(claims), strict=True):
            member.fair_share = fair_share

    def _count_usage(self) -> None:
        now = self._clock.now()
        passed_s = now - self._counted_s
        self._counted_s = now
        for member in self._members:
            member.usage_s += passed_s * min(1.0, member.utilisation)
        if self.has_one_job:
            return
        active = [member.usage_s for member in self._members if member.attempts]
        least_s = min(active, default=0.0)
        for member in self._members:
            if not member.attempts:
                # a job without attempts must not save up a claim
                member.usage_s = max(member.usage_s, least_s)

    def notify_others(self, member: Member) -> None:
        """Let the other jobs schedule again: there is room, or `member` needs room."""
        for other in self._members:
            if other is not member:
                other.schedule()

    def may_start(self, member: Member) -> bool:
        """Return True if a job may start one more worker.

        It must not take capacity from a starved job that has less.
        """
        others = [other for other in self._members if other is not member]
        if not others:
            return True
        has_its_share = member.held >= member.fair_share
        for other in others:
            comes_first = has_its_share or other.utilisation < member.utilisation
            if other.is_starved and comes_first:
                return False
        return self._has_room(self._free(), member.request)

    def _has_room(self, free: Amounts, request: Resources) -> bool:
        """Return True if one more worker, or gang, fits.

        On which nodes a gang's bundles lie is known to Ray only, so its view, a little late, counts
        for a strict strategy too.
        """
        if not request.strategy.startswith("STRICT"):
            return fits(free, request)
        return fits({node.key: node.free for node in self._nodes}, request)

    def should_release(self, member: Member, node: str) -> bool:
        """Return True if a job's idle worker on `node` must end.

        The node is empty while the worker starts.
        """
        for other in self._members:
            if other is member or not other.is_starved:
                continue
            free = self._free()
            if not self._has_room(free, other.request):
                donors = self._donors(other, free)
                return member in donors and node in self._release_nodes(free, other, donors)
        return False

    def _donors(self, other: Member, free: Amounts) -> list[Member]:
        members = [member for member in self._members if member is not other]
        return [member for member in members if self._is_donor(member, free, other)]

    def _is_donor(self, member: Member, free: Amounts, other: Member) -> bool:
        """Return True if a job has to release workers for `other`.

        A job above its fair share has to. All have to if enough is free, but fragmented over nodes.
        """
        if member.held > member.fair_share:
            return True
        bundle = bundle_of(other.request)  # not empty, because an empty one always fits
        total = {name: sum(node.get(name, 0) for node in free.values()) for name in bundle}
        return times_in(total, bundle) >= other.request.workers

    def _release_nodes(
        self,
        free: Amounts,
        other: Member,
        donors: Sequence[Member],
    ) -> Sequence[str]:
        """Return the nodes on which workers must end.

        This is the node where the fewest have to end, or all if no node suffices.
        """
        everywhere = ["", *free]
        if other.request.workers > 1 or len(free) <= 1:
            return everywhere
        bundle = bundle_of(other.request)
        ends: dict[str, int] = {}
        for address, amounts in free.items():
            count = _count_ends(address, amounts, bundle, donors)
            if count is not None:
                ends[address] = count
        if not ends:
            return everywhere
        return ["", min(ends, key=lambda address: ends[address])]

    def _free(self) -> dict[str, dict[str, float]]:
        """Return the free amounts of each address, which several nodes of a machine may share.

        Starting workers are placed on the first node with room.
        """
        free: dict[str, dict[str, float]] = {}
        for node in self._nodes:
            _take(free.setdefault(node.address, {}), node.total, -1)
        for member in self._members:
            bundle = bundle_of(member.request)
            if not bundle:
                continue
            for address, count in member.workers.items():
                if address in free and member.request.workers == 1:
                    _take(free[address], bundle, count)
                else:
                    _take_anywhere(free, bundle, count * member.request.workers)
        return free


def _count_ends(
    address: str,
    amounts: Mapping[str, float],
    bundle: Mapping[str, float],
    donors: Sequence[Member],
) -> int | None:
    """Return how many donors' workers on a node must end to make room for a bundle.

    Returns None if there is not enough room without all of them.
    """
    freed, count = dict(amounts), 0
    for donor in donors:
        for _ in range(donor.workers[address]):
            if times_in(freed, bundle):
                return count
            count += 1
            _take(freed, bundle_of(donor.request), -1)
    return count if times_in(freed, bundle) else None


def _take(amounts: dict[str, float], bundle: Mapping[str, float], count: int) -> None:
    for name, amount in bundle.items():
        amounts[name] = amounts.get(name, 0) - amount * count


def _take_anywhere(
    free: Mapping[str, dict[str, float]],
    bundle: Mapping[str, float],
    count: int,
) -> None:
    """Take bundles one by one from the first node with room, or else from the first node."""
    if not free:
        return
    for _ in range(count):
        room = [amounts for amounts in free.values() if times_in(amounts, bundle)]
        _take(room[0] if room else next(iter(free.values())), bundle, 1)
