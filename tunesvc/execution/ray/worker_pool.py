"""The workers of one job: starts, adopts and ends them.

Starts only as many as the cluster holds and the driver's other jobs leave to this one. Knows
nothing of which worker gets which attempt. Imports Ray for the error of an unreachable worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from ray.exceptions import ActorUnavailableError

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.output.spool import Remains
from tunesvc.execution.ray.dispatch_state import DispatchState, WorkerState
from tunesvc.execution.ray.fair_share import GRACE_S, FairShares, Member
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.ray_resources import slots_on
from tunesvc.execution.ray.worker_backend import WorkerBackend, WorkerHandle
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)


class WorkerPool:
    """Workers started or adopted under a fencing token, until a higher token takes over."""

    def __init__(
        self,
        backend: WorkerBackend,
        event_loop: EventLoop,
        fair_shares: FairShares,
        state: DispatchState,
    ) -> None:
        """Make a pool without workers.

        Args:
            backend: starts workers.
            event_loop: receives their answers.
            fair_shares: the driver's other jobs.
            state: the attempts to run.
        """
        self._backend = backend
        self._event_loop = event_loop
        self._fair_shares = fair_shares
        self._state = state
        self._member = Member(
            backend.job.resources,
            lambda: event_loop.call_soon(state.schedule),
        )
        self.fields = {"study": backend.job.study}
        """Fields of log records."""
        self.token = 0
        self.workers: list[WorkerState] = []
        self.unconfirmed: list[WorkerState] = []
        """Workers of an earlier coordinator that have not answered yet."""
        self.is_searching = False
        """True until the workers of an earlier coordinator are found."""
        self.is_superseded = False
        """True if a coordinator with a higher token has the workers. They must not be touched."""
        self.is_closed = False
        self._is_grace_timed = False

    @property
    def is_usable(self) -> bool:
        """True if attempts may begin on the workers."""
        return not (self.is_searching or self.is_superseded or self.is_closed)

    @property
    def is_owner(self) -> bool:
        """True if this pool may end all workers with the job's key."""
        return self._backend.shared and self.token > 0 and not self.is_superseded

    @property
    def starting_count(self) -> int:
        """Number of workers that are not up yet."""
        return sum(not worker.is_up for worker in self.workers)

    @property
    def names(self) -> set[str]:
        """Names of all known workers."""
        return {worker.handle.name for worker in (*self.workers, *self.unconfirmed)}

    def limit(self) -> int:
        """Return how many attempts may be launched at a time. Any thread may call this.

        Raises:
            UnsatisfiableRequest: no attempt can ever run.
        """
        return self._fair_shares.slots(self._member, self._slots_alone())

    # --- start and end ----------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Join the driver's other jobs, and start the first worker on a local Ray.

        Workers on a cluster have to wait: their names contain the fencing token.
        """
        with suppress(UnsatisfiableRequest):  # `limit` raises it again
            self._member.slots_alone = self._slots_alone()
            self._fair_shares.join(self._member)
            if not self._backend.shared and self._fair_shares.may_start(self._member):
                self._start_one()

    def start(self, count_max: int) -> None:
        """Start up to `count_max` workers, as many as there is room for."""
        count, started = min(count_max, self._room()), 0
        while started < count and self._fair_shares.may_start(self._member):
            self._start_one()
            started += 1
        if started:
            self.request_capacity()

    def end(self, worker: WorkerState) -> None:
        """End an idle worker. Other jobs may use its resources."""
        _logger.info("a worker on %s ends", worker.node or "a node", extra=self.fields)
        self.workers.remove(worker)
        worker.handle.end()
        self.publish_demand()
        self._fair_shares.notify_others(self._member)

    def end_if_retiring(self, worker: WorkerState) -> None:
        """End a retiring worker, if all its attempts are recorded."""
        if worker in self.workers and not worker.attempts and worker.is_retiring:
            self.end(worker)

    def adopt(self, worker: WorkerState) -> None:
        """Keep a worker of an earlier coordinator for its present attempts only."""
        attempts = ", ".join(str(assigned.attempt) for assigned in worker.attempts)
        _logger.info(
            "adopted a worker with the attempts %s",
            attempts,
            extra=self.fields,
        )
        worker.is_up = worker.is_retiring = True
        self.workers.append(worker)

    def heartbeat(self) -> None:
        """Send a heartbeat to idle workers, which get no polls.

        Without calls they would end as orphans.
        """
        for worker in self.workers:
            if worker.is_up and not worker.live:
                answer = worker.handle.actor.heartbeat.remote(self.token)
                self._event_loop.on_result(answer, partial(self._on_heartbeat, worker))

    def _start_one(self) -> None:
        worker = WorkerState(self._backend.start(self.token))
        self.workers.append(worker)
        self.publish_demand()
        answer = worker.handle.actor.info.remote()
        self._event_loop.on_result(answer, partial(self._on_worker_ready, worker))

    def _on_worker_ready(
        self,
        worker: WorkerState,
        info: WorkerInfo | None,
        error: BaseException | None,
    ) -> None:
        if worker not in self.workers:
            return
        if error is None:
            worker.is_up, worker.info = True, info
            worker.node = "" if info is None else info.node
            pid = None if info is None else info.pid
            _logger.info(
                "worker on %s is up (process %s)",
                worker.node,
                pid,
                extra=self.fields,
            )
        else:
            _logger.warning("a worker could not start: %s", error, extra=self.fields)
            self.end(worker)
            self._state.fail_first(outcome_of_death(error, killed=False))
        self._state.schedule()

    def _on_heartbeat(
        self,
        worker: WorkerState,
        _: None,
        error: BaseException | None,
    ) -> None:
        """Drop a worker that died while idle, before it is assigned an attempt."""
        dead = error is not None and not isinstance(error, ActorUnavailableError)
        if dead and worker in self.workers and not worker.attempts:
            self.end(worker)

    def remains(self, worker: WorkerState) -> Remains:
        """Return a dead worker's unread output. Any thread may call this; it may take a while."""
        if worker.info is None:
            return Remains()
        return self._backend.remains(worker.info, worker.output_positions)

    # --- room -------------------------------------------------------------------------------------

    def publish_demand(self) -> None:
        """Publish this job's workers and attempts to the driver's other jobs, if there are any."""
        if self._fair_shares.has_one_job:
            return
        attempts = self._state.attempt_count
        self._member.workers = Counter(worker.node for worker in (*self.workers, *self.unconfirmed))
        self._member.attempts = attempts
        self._member.has_begun |= attempts > 0
        self._fair_shares.update()
        if self._member.fewer_since_s is not None and not self._is_grace_timed:
            self._is_grace_timed = True
            self._event_loop.call_later(GRACE_S, self._on_grace_end)

    def _on_grace_end(self) -> None:
        """Release the workers for which no attempt has come, if another job needs them."""
        self._is_grace_timed = False
        self._state.schedule()

    def request_capacity(self) -> None:
        """Make the other jobs release workers if this one has less than its fair share."""
        if self._member.is_starved:
            self._fair_shares.notify_others(self._member)

    def should_release(self, worker: WorkerState) -> bool:
        """Return True if a worker has to end, once idle, in favour of another job."""
        return self._fair_shares.should_release(self._member, worker.node)

    def _room(self) -> int:
        """Return how many more workers the cluster can hold."""
        used = len(self.workers) + len(self.unconfirmed)
        try:
            return self._slots_alone() - used
        except UnsatisfiableRequest:  # a node is gone: let one worker wait in Ray until it is back
            return 1 - used

    def _slots_alone(self) -> int:
        """Return how many workers the cluster can hold if there is no other job."""
        nodes = self._backend.nodes()
        self._fair_shares.set_nodes(nodes)
        try:
            alone = slots_on(nodes, self._backend.job.resources)
        except UnsatisfiableRequest:
            self._member.can_run = False
            raise
        self._member.can_run = True
        return alone

    # --- closing ----------------------------------------------------------------------------------

    def on_superseded(self) -> None:
        """Give up all workers: a coordinator with a higher token has them."""
        _logger.warning("another coordinator has the workers", extra=self.fields)
        self.is_superseded = True
        self._fair_shares.leave(self._member)

    def release_worker(self, worker: WorkerState) -> None:
        """Remove a worker that refused this token, and give up all others."""
        self.on_superseded()
        if worker in self.workers:
            self.workers.remove(worker)

    def close(self) -> None:
        """End all workers, and Ray if this process owns it. Repeatable."""
        if self.is_superseded or self.is_closed:
            self._shut_down([])
        else:
            self._shut_down(self._all_workers())

    def leave(self) -> None:
        """Leave the cluster.

        Busy workers stay, idle ones end. On a local Ray the same as `close`.
        """
        if not self._backend.shared:
            self.close()
            return
        idle = [worker.handle for worker in self.workers if not worker.attempts]
        self._shut_down([] if self.is_superseded else idle)

    def _all_workers(self) -> Sequence[WorkerHandle]:
        """Return the known workers and all others with the job's key, such as unconfirmed ones."""
        if self.is_owner:
            with suppress(Exception):  # Ray's head is away: the others end as orphans
                handles = self._backend.find()
                tokens = [self._backend.token_of(handle.name) for handle in handles]
                is_superseded = any(token > self.token for token in tokens)
                return [] if is_superseded else handles
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
