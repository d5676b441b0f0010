"""The workers of one job: which there are, whose they are, who is started and who is ended.

No more are started than there is room for, and than the other jobs of the driver let this one. What attempts say is not
known here, nor which worker gets what. Imports Ray for the error of a worker out of reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from ray.exceptions import ActorUnavailableError

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.attempt.spool import Remains
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.ray.dispatch_state import WorkerState
from tunesvc.execution.ray.fair_share import FairShares, Member
from tunesvc.execution.ray.ray_resources import slots_on
from tunesvc.execution.ray.worker_backend import WorkerBackend, WorkerHandle


class WorkerPool:
    """Those that were started or taken over, under a fencing token, until somebody with a higher one has them."""

    def __init__(
        self,
        fleet: WorkerBackend,
        inbox: EventLoop,
        shares: FairShares,
        *,
        attempts: Callable[[], int],
        schedule: Callable[[], None],
        never_came_up: Callable[[BaseException], None],
    ) -> None:
        """Make a pool without workers.

        Args:
            attempts: returns how many there are to run.
            schedule: called when a worker is ready, and when there may be room for one.
            never_came_up: called with the reason when a worker ends before it is ready.
        """
        self._fleet = fleet
        self._inbox = inbox
        self._shares = shares
        self._attempts = attempts
        self._schedule = schedule
        self._never_came_up = never_came_up
        self._member = Member(fleet.job.resources, partial(inbox.put, schedule))
        self.token = 0
        self.slots: list[WorkerState] = []
        self.asked: list[WorkerState] = []
        """Workers of an earlier coordinator that have not said yet what they run."""
        self.are_sought = False
        """Whether those of an earlier coordinator are not found yet."""
        self.is_superseded = False
        """Whether a coordinator with a higher token has them: nothing of them is touched any more."""
        self.is_closed = False

    @property
    def are_usable(self) -> bool:
        """Whether attempts may begin on them: all are found, and nobody else has them."""
        return not (self.are_sought or self.is_superseded or self.is_closed)

    @property
    def are_reused(self) -> bool:
        """Whether an attempt may begin where another one has ended."""
        return self._fleet.job.environment.isolation != "process"

    @property
    def is_owner(self) -> bool:
        """Whether all workers that bear the job's key are ours to end."""
        return self._fleet.shared and self.token > 0 and not self.is_superseded

    @property
    def coming(self) -> int:
        """How many are not up yet."""
        return sum(not slot.is_up for slot in self.slots)

    @property
    def names(self) -> set[str]:
        """Of all that are known."""
        return {slot.actor.name for slot in (*self.slots, *self.asked)}

    def limit(self) -> int:
        """How many attempts may be under way at a time. Any thread may ask.

        Raises:
            UnsatisfiableRequest: none can ever run.
        """
        return self._shares.slots(self._member, self._alone())

    # --- start and end --------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Take part with the other jobs, and start the first worker of a local Ray now, where it need not know yet for
        which coordinator."""
        with suppress(UnsatisfiableRequest):  # whoever asks for the slots is told
            self._member.alone = self._alone()
            self._shares.join(self._member)
            if not self._fleet.shared and self._shares.may_start(self._member):
                self._start_one()

    def start(self, wanted: int) -> None:
        """Start so many, or as many as may."""
        count, started = min(wanted, self._room()), 0
        while started < count and self._shares.may_start(self._member):
            self._start_one()
            started += 1
        if started:
            self.request_capacity()

    def end(self, slot: WorkerState) -> None:
        """End a worker that runs nothing; other jobs may have its room."""
        self.slots.remove(slot)
        slot.actor.end()
        self.publish_demand()
        self._shares.tell_others(self._member)

    def end_if_spent(self, slot: WorkerState) -> None:
        """End a worker on which no other attempt may begin, once the end of all that it ran is recorded."""
        if slot in self.slots and not slot.attempts and slot.is_spent:
            self.end(slot)

    def take_over(self, slot: WorkerState) -> None:
        """Keep a worker of an earlier coordinator for what it runs, and for nothing else."""
        slot.is_up = slot.is_spent = True
        self.slots.append(slot)

    def heartbeat(self) -> None:
        """Have those that nobody polls know that somebody is there: they must not feel alone."""
        for slot in self.slots:
            if slot.is_up and not slot.live:
                self._inbox.when_done(slot.actor.handle.heartbeat.remote(self.token), partial(self._stayed, slot))

    def _start_one(self) -> None:
        slot = WorkerState(self._fleet.start(self.token))
        self.slots.append(slot)
        self.publish_demand()
        self._inbox.when_done(slot.actor.handle.info.remote(), partial(self._on_worker_ready, slot))

    def _on_worker_ready(self, slot: WorkerState, place: WorkerInfo | None, error: BaseException | None) -> None:
        if slot not in self.slots:
            return
        if error is None:
            slot.is_up, slot.place = True, place
            slot.node = "" if place is None else place.node
        else:
            self.end(slot)
            self._never_came_up(error)
        self._schedule()

    def _stayed(self, slot: WorkerState, _: None, error: BaseException | None) -> None:
        """A worker that died idle is not given an attempt."""
        dead = error is not None and not isinstance(error, ActorUnavailableError)
        if dead and slot in self.slots and not slot.attempts:
            self.end(slot)

    def remains(self, slot: WorkerState) -> Remains:
        """What a dead worker has left. Any thread may ask; may take a while."""
        return Remains() if slot.place is None else self._fleet.remains(slot.place, slot.heard)

    # --- room -----------------------------------------------------------------------------------------

    def publish_demand(self) -> None:
        """Say what this job has and wants, where there are others."""
        if self._shares.is_alone:
            return
        attempts = self._attempts()
        self._member.workers = Counter(slot.node for slot in (*self.slots, *self.asked))
        self._member.attempts = attempts
        self._member.has_begun |= attempts > 0
        self._shares.update()

    def request_capacity(self) -> None:
        """Have the other jobs give way if this one has less than its share."""
        if self._member.lacks:
            self._shares.tell_others(self._member)

    def should_release(self, slot: WorkerState) -> bool:
        """Whether a worker has to end, as soon as it runs nothing, for another job that lacks its room."""
        return self._shares.should_release(self._member, slot.node)

    def _room(self) -> int:
        """Ray never grants more than the cluster can hold."""
        taken = len(self.slots) + len(self.asked)
        try:
            return self._alone() - taken
        except UnsatisfiableRequest:  # a node went away meanwhile: one worker waits in Ray until it comes back
            return 1 - taken

    def _alone(self) -> int:
        """How many the cluster would hold if there were no other job."""
        nodes = self._fleet.nodes()
        self._shares.saw(nodes)
        try:
            alone = slots_on(nodes, self._fleet.job.resources)
        except UnsatisfiableRequest:
            self._member.can_run = False
            raise
        self._member.can_run = True
        return alone

    # --- parting --------------------------------------------------------------------------------------

    def on_superseded(self) -> None:
        """A coordinator with a higher token has the workers now: touch nothing any more."""
        self.is_superseded = True
        self._shares.leave(self._member)

    def release_worker(self, slot: WorkerState) -> None:
        """Let go of a worker that somebody with a higher token has taken over, and of all others with it."""
        self.on_superseded()
        if slot in self.slots:
            self.slots.remove(slot)

    def close(self) -> None:
        """End all of them, and Ray if it is our own. Repeatable."""
        self._shut_down([] if self.is_superseded or self.is_closed else self._all())

    def leave(self) -> None:
        """Leave the cluster and those that run something; others are ended. On a local Ray as `close`."""
        if self._fleet.shared:
            idle = [slot.actor for slot in self.slots if not slot.attempts]
            self._shut_down([] if self.is_superseded else idle)
        else:
            self.close()

    def _all(self) -> Sequence[WorkerHandle]:
        """The workers that we know, and others that bear the job's key, such as those that have not answered yet."""
        if self.is_owner:
            with suppress(Exception):  # Ray's head is away: workers that nobody speaks to end by themselves
                actors = self._fleet.find()
                newer = any(self._fleet.token_of(actor.name) > self.token for actor in actors)
                return [] if newer else actors
        return [slot.actor for slot in self.slots]

    def _shut_down(self, ended: Sequence[WorkerHandle]) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.slots.clear()
        for actor in ended:
            actor.end()
        self._shares.leave(self._member)
        self._fleet.close()
