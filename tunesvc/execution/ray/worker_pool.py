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
        backend: WorkerBackend,
        event_loop: EventLoop,
        fair_shares: FairShares,
        *,
        attempts: Callable[[], int],
        schedule: Callable[[], None],
        on_start_failed: Callable[[BaseException], None],
    ) -> None:
        """Make a pool without workers.

        Args:
            attempts: returns how many there are to run.
            schedule: called when a worker is ready, and when there may be room for one.
            never_came_up: called with the reason when a worker ends before it is ready.
        """
        self._backend = backend
        self._event_loop = event_loop
        self._fair_shares = fair_shares
        self._attempts = attempts
        self._schedule = schedule
        self._on_start_failed = on_start_failed
        self._member = Member(backend.job.resources, partial(event_loop.call_soon, schedule))
        self.token = 0
        self.workers: list[WorkerState] = []
        self.unconfirmed: list[WorkerState] = []
        """Workers of an earlier coordinator that have not said yet what they run."""
        self.is_searching = False
        """Whether those of an earlier coordinator are not found yet."""
        self.is_superseded = False
        """Whether a coordinator with a higher token has them: nothing of them is touched any more."""
        self.is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether attempts may begin on them: all are found, and nobody else has them."""
        return not (self.is_searching or self.is_superseded or self.is_closed)

    @property
    def reuses_workers(self) -> bool:
        """Whether an attempt may begin where another one has ended."""
        return self._backend.job.environment.isolation != "process"

    @property
    def is_owner(self) -> bool:
        """Whether all workers that bear the job's key are ours to end."""
        return self._backend.shared and self.token > 0 and not self.is_superseded

    @property
    def starting_count(self) -> int:
        """How many are not up yet."""
        return sum(not worker.is_up for worker in self.workers)

    @property
    def names(self) -> set[str]:
        """Of all that are known."""
        return {worker.handle.name for worker in (*self.workers, *self.unconfirmed)}

    def limit(self) -> int:
        """How many attempts may be under way at a time. Any thread may ask.

        Raises:
            UnsatisfiableRequest: none can ever run.
        """
        return self._fair_shares.slots(self._member, self._slots_alone())

    # --- start and end --------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Take part with the other jobs, and start the first worker of a local Ray now, where it need not know yet for
        which coordinator."""
        with suppress(UnsatisfiableRequest):  # whoever asks for the slots is told
            self._member.slots_alone = self._slots_alone()
            self._fair_shares.join(self._member)
            if not self._backend.shared and self._fair_shares.may_start(self._member):
                self._start_one()

    def start(self, count_max: int) -> None:
        """Start so many, or as many as may."""
        count, started = min(count_max, self._room()), 0
        while started < count and self._fair_shares.may_start(self._member):
            self._start_one()
            started += 1
        if started:
            self.request_capacity()

    def end(self, worker: WorkerState) -> None:
        """End a worker that runs nothing; other jobs may have its room."""
        self.workers.remove(worker)
        worker.handle.end()
        self.publish_demand()
        self._fair_shares.notify_others(self._member)

    def end_if_retiring(self, worker: WorkerState) -> None:
        """End a worker on which no other attempt may begin, once the end of all that it ran is recorded."""
        if worker in self.workers and not worker.attempts and worker.is_retiring:
            self.end(worker)

    def adopt(self, worker: WorkerState) -> None:
        """Keep a worker of an earlier coordinator for what it runs, and for nothing else."""
        worker.is_up = worker.is_retiring = True
        self.workers.append(worker)

    def heartbeat(self) -> None:
        """Have those that nobody polls know that somebody is there: they must not feel alone."""
        for worker in self.workers:
            if worker.is_up and not worker.live:
                self._event_loop.on_result(
                    worker.handle.actor.heartbeat.remote(self.token), partial(self._on_heartbeat, worker)
                )

    def _start_one(self) -> None:
        worker = WorkerState(self._backend.start(self.token))
        self.workers.append(worker)
        self.publish_demand()
        self._event_loop.on_result(worker.handle.actor.info.remote(), partial(self._on_worker_ready, worker))

    def _on_worker_ready(self, worker: WorkerState, info: WorkerInfo | None, error: BaseException | None) -> None:
        if worker not in self.workers:
            return
        if error is None:
            worker.is_up, worker.info = True, info
            worker.node = "" if info is None else info.node
        else:
            self.end(worker)
            self._on_start_failed(error)
        self._schedule()

    def _on_heartbeat(self, worker: WorkerState, _: None, error: BaseException | None) -> None:
        """A worker that died idle is not given an attempt."""
        dead = error is not None and not isinstance(error, ActorUnavailableError)
        if dead and worker in self.workers and not worker.attempts:
            self.end(worker)

    def remains(self, worker: WorkerState) -> Remains:
        """What a dead worker has left. Any thread may ask; may take a while."""
        return Remains() if worker.info is None else self._backend.remains(worker.info, worker.output_positions)

    # --- room -----------------------------------------------------------------------------------------

    def publish_demand(self) -> None:
        """Say what this job has and wants, where there are others."""
        if self._fair_shares.has_one_job:
            return
        attempts = self._attempts()
        self._member.workers = Counter(worker.node for worker in (*self.workers, *self.unconfirmed))
        self._member.attempts = attempts
        self._member.has_begun |= attempts > 0
        self._fair_shares.update()

    def request_capacity(self) -> None:
        """Have the other jobs give way if this one has less than its share."""
        if self._member.is_starved:
            self._fair_shares.notify_others(self._member)

    def should_release(self, worker: WorkerState) -> bool:
        """Whether a worker has to end, as soon as it runs nothing, for another job that lacks its room."""
        return self._fair_shares.should_release(self._member, worker.node)

    def _room(self) -> int:
        """Ray never grants more than the cluster can hold."""
        taken = len(self.workers) + len(self.unconfirmed)
        try:
            return self._slots_alone() - taken
        except UnsatisfiableRequest:  # a node went away meanwhile: one worker waits in Ray until it comes back
            return 1 - taken

    def _slots_alone(self) -> int:
        """How many the cluster would hold if there were no other job."""
        nodes = self._backend.nodes()
        self._fair_shares.set_nodes(nodes)
        try:
            alone = slots_on(nodes, self._backend.job.resources)
        except UnsatisfiableRequest:
            self._member.can_run = False
            raise
        self._member.can_run = True
        return alone

    # --- parting --------------------------------------------------------------------------------------

    def on_superseded(self) -> None:
        """A coordinator with a higher token has the workers now: touch nothing any more."""
        self.is_superseded = True
        self._fair_shares.leave(self._member)

    def release_worker(self, worker: WorkerState) -> None:
        """Let go of a worker that somebody with a higher token has taken over, and of all others with it."""
        self.on_superseded()
        if worker in self.workers:
            self.workers.remove(worker)

    def close(self) -> None:
        """End all of them, and Ray if it is our own. Repeatable."""
        self._shut_down([] if self.is_superseded or self.is_closed else self._all_workers())

    def leave(self) -> None:
        """Leave the cluster and those that run something; others are ended. On a local Ray as `close`."""
        if self._backend.shared:
            idle = [worker.handle for worker in self.workers if not worker.attempts]
            self._shut_down([] if self.is_superseded else idle)
        else:
            self.close()

    def _all_workers(self) -> Sequence[WorkerHandle]:
        """The workers that we know, and others that bear the job's key, such as those that have not answered yet."""
        if self.is_owner:
            with suppress(Exception):  # Ray's head is away: workers that nobody speaks to end by themselves
                handles = self._backend.find()
                newer = any(self._backend.token_of(handle.name) > self.token for handle in handles)
                return [] if newer else handles
        return [worker.handle for worker in self.workers]

    def _shut_down(self, ended: Sequence[WorkerHandle]) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.workers.clear()
        for handle in ended:
            handle.end()
        self._fair_shares.leave(self._member)
        self._backend.close()
