"""Which worker gets what waits, who stands in whose line, and when one more worker is wanted.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
What waits while all workers that there may be are busy stands in line in one of them, which begins it by itself; if
another one is done sooner, that gets it. Nobody but the next one stands behind a long attempt. Imports no Ray itself.
"""

from __future__ import annotations

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Launch
from tunesvc.execution.ray.dispatch_state import AssignedAttempt, PendingQueue, PollingTimeouts, WorkerState
from tunesvc.execution.ray.ray_errors import outcome_of_death
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.util.clock import SystemClock


class Scheduler:
    """Gives what waits to workers, as many at a time as may run."""

    def __init__(
        self,
        pool: WorkerPool,
        queue: PendingQueue,
        client: WorkerClient,
        event_loop: EventLoop,
        timeouts: PollingTimeouts,
    ) -> None:
        self._pool = pool
        self._queue = queue
        self._client = client
        self._event_loop = event_loop
        self._timeouts = timeouts
        self._clock = SystemClock()
        self._parallelism: int | None = None
        self._backlog_max = 1
        self._is_check_scheduled = False

    def add(self, launch: Launch) -> None:
        """Have one more attempt wait, and others give way to it if need be."""
        self._queue.launches.append(launch)
        self._parallelism, self._backlog_max = launch.parallelism, launch.backlog_max
        self.schedule()
        self._pool.request_capacity()

    def schedule(self) -> None:
        """Give what waits to workers that are free, and start as many more as there is room for."""
        if not self._pool.is_usable:
            return
        self._release_workers()
        for worker in [worker for worker in self._pool.workers if worker.is_free]:
            if self._queue.launches and self._may_begin > 0 and not self._pool.should_release(worker):
                self._client.begin(worker, self._queue.launches.popleft())
        free = sum(worker.is_free for worker in self._pool.workers)
        could_begin = min(len(self._queue.launches) + len(self._in_backlogs), self._may_begin)
        if (wanted := could_begin - free - self._pool.starting_count) > 0:
            self._pool.start(wanted)
        self._fill_backlogs()
        self._trim_backlogs()
        self._rebalance()

    @property
    def attempts(self) -> int:
        """How many run or wait, or as many of them as may run at a time."""
        attempts = self._client.live_count + len(self._queue.launches)
        return attempts if self._parallelism is None else min(attempts, self._parallelism)

    def fail_first(self, error: BaseException) -> None:
        """A worker that cannot come up takes an attempt along: else one would be started after another, uncounted."""
        if self._queue.launches:
            launch = self._queue.launches.popleft()
            self._client.finish_unstarted(launch.attempt, outcome_of_death(error, killed=False))

    @property
    def _may_begin(self) -> int:
        """How many more attempts may run at a time than do."""
        if self._parallelism is None:
            return len(self._queue.launches) + 1
        return self._parallelism - sum(bool(worker.live) for worker in self._pool.workers)

    @property
    def _in_backlogs(self) -> list[AssignedAttempt]:
        """Those that could begin on another worker."""
        return [
            assigned
            for worker in self._pool.workers
            for assigned in worker.live[1:]
            if assigned.in_backlog and assigned.launch
        ]

    def _release_workers(self) -> None:
        """Let go of workers whose room another job lacks: those that run nothing, once all of it is recorded."""
        self._pool.publish_demand()
        for worker in [worker for worker in self._pool.workers if self._pool.should_release(worker)]:
            for assigned in worker.live[1:]:
                self._move(assigned)
            if not worker.attempts and self._pool.should_release(worker):  # one less may be enough
                self._pool.end(worker)

    def _fill_backlogs(self) -> None:
        """Have what no worker can begin stand in line where it will probably begin first.

        Only a trial's first attempt: one that ended its worker before must be seen to do so again.
        """
        starting_count = self._pool.starting_count
        if len(self._queue.launches) <= starting_count or not self._pool.reuses_workers:
            return
        staying = [worker for worker in self._pool.workers if not self._pool.should_release(worker)]
        while candidates := [worker for worker in staying if worker.has_backlog_room(self._backlog_max_of(worker))]:
            launch = self._queue.pop_first_attempt(starting_count)
            if launch is None:
                return
            self._client.begin(min(candidates, key=_start_order), launch, in_backlog=True)

    def _backlog_max_of(self, worker: WorkerState) -> int:
        """How many may stand in a worker's line."""
        return 1 if self._clock.now() - _began_s(worker) > self._timeouts.long_attempt_s else self._backlog_max

    def _trim_backlogs(self) -> None:
        """Nobody but the next one stands behind an attempt that turns out to be long."""
        for worker in self._pool.workers:
            for assigned in worker.live[1 + self._backlog_max_of(worker) :]:
                if assigned.launch:
                    self._move(assigned)

    def _rebalance(self) -> None:
        """Workers that have nothing to do get what has stood in others' lines for a while."""
        free = sum(worker.is_free for worker in self._pool.workers)
        count = 0 if self._queue.launches else max(0, min(free, self._may_begin))
        for first in sorted(self._in_backlogs, key=lambda assigned: assigned.since_s)[:count]:
            wait_s = first.since_s + self._timeouts.backlog_s - self._clock.now()
            if wait_s > 0:
                self._schedule_rebalance(wait_s)
                break
            self._move(first)

    def _move(self, assigned: AssignedAttempt) -> None:
        if assigned.cancel_reason is None:
            self._client.cancel(assigned, "other worker")

    def _schedule_rebalance(self, wait_s: float) -> None:
        if not self._is_check_scheduled:
            self._is_check_scheduled = True
            self._event_loop.call_later(wait_s, self._check_backlogs)

    def _check_backlogs(self) -> None:
        self._is_check_scheduled = False
        self.schedule()


def _began_s(worker: WorkerState) -> float:
    """When the attempt began that a worker runs."""
    live = worker.live
    return live[0].since_s if live else 0.0


def _start_order(worker: WorkerState) -> tuple[int, float]:
    """By how much stands in its line, then by how long it has run what it runs."""
    return len(worker.live), _began_s(worker)
