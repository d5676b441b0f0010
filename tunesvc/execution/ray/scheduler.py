"""Assigns pending attempts to workers and their backlogs, and starts more workers when needed.

Attempts wait in our queue, not in Ray's: the first worker that comes up or becomes free takes the
next one. If all workers are busy and no more may start, an attempt waits in the backlog of one of
them, which begins it by itself. It moves if another worker becomes free sooner. Behind a long
attempt, at most one waits. Imports no Ray itself.
"""

from __future__ import annotations

import math

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Launch
from tunesvc.execution.ray.dispatch_state import (
    Assignment,
    DispatchState,
    PollingTimeouts,
    WorkerState,
)
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.util.clock import SystemClock


class Scheduler:
    """Assigns pending attempts to workers, at most `parallelism` at a time."""

    def __init__(
        self,
        pool: WorkerPool,
        state: DispatchState,
        client: WorkerClient,
        event_loop: EventLoop,
        timeouts: PollingTimeouts,
    ) -> None:
        self._pool = pool
        self._state = state
        self._client = client
        self._event_loop = event_loop
        self._timeouts = timeouts
        self._clock = SystemClock()
        self._is_check_scheduled = False
        state.schedule = self.schedule

    def add(self, launch: Launch) -> None:
        """Queue an attempt, and claim capacity from other jobs if this one has too little."""
        self._state.launches.append(launch)
        self._state.parallelism = launch.parallelism
        self._state.backlog_max = launch.backlog_max
        self.schedule()
        self._pool.request_capacity()

    def schedule(self) -> None:
        """Assign pending attempts to free workers, start more workers, and balance the backlogs."""
        if not self._pool.is_usable:
            return
        self._release_workers()
        self._end_surplus()
        self._begin_on_free_workers()
        self._start_workers()
        self._fill_backlogs()
        self._trim_backlogs()
        self._rebalance()

    def _begin_on_free_workers(self) -> None:
        for worker in self._free_workers:
            if not self._state.launches or self._may_begin <= 0:
                return
            if not self._pool.should_release(worker):
                self._client.begin(worker, self._state.launches.popleft())

    def _start_workers(self) -> None:
        available = len(self._free_workers) + self._pool.starting_count
        waiting = len(self._state.launches) + len(self._in_backlogs)
        missing = min(waiting, self._may_begin) - available
        if missing > 0:
            self._pool.start(missing)

    @property
    def _free_workers(self) -> list[WorkerState]:
        return [worker for worker in self._pool.workers if worker.is_free]

    @property
    def _may_begin(self) -> int:
        """Number of attempts that may run in addition to the running ones."""
        if self._state.parallelism is None:
            return len(self._state.launches) + 1
        busy = [worker for worker in self._pool.workers if worker.live]
        return self._state.parallelism - len(busy)

    @property
    def _in_backlogs(self) -> list[Assignment]:
        """Attempts in backlogs that could move to another worker."""
        waiting = [assigned for worker in self._pool.workers for assigned in worker.live[1:]]
        return [assigned for assigned in waiting if assigned.in_backlog and assigned.launch]

    def _release_workers(self) -> None:
        """End workers whose capacity another job needs, as soon as their attempts are recorded."""
        self._pool.publish_demand()
        releasing = [worker for worker in self._pool.workers if self._pool.should_release(worker)]
        for worker in releasing:
            for assigned in worker.live[1:]:
                self._move(assigned)
            # Ask again: a worker that ended before may have freed enough.
            if not worker.attempts and self._pool.should_release(worker):
                self._pool.end(worker)

    def _end_surplus(self) -> None:
        """End idle workers above the job's part of the cluster."""
        most = math.inf if self._state.workers_max is None else self._state.workers_max
        for worker in [worker for worker in self._pool.workers if not worker.attempts]:
            if len(self._pool.workers) > most:
                self._pool.end(worker)

    def _fill_backlogs(self) -> None:
        """Move pending attempts into the backlogs where they will probably begin first.

        Only a trial's first attempt moves. A retry may crash its worker again before its first
        event, and in a backlog that would look as if it had never begun.
        """
        starting_count = self._pool.starting_count
        if len(self._state.launches) <= starting_count:
            return
        staying = [worker for worker in self._pool.workers if not self._pool.should_release(worker)]
        while candidates := [worker for worker in staying if self._has_room(worker)]:
            launch = self._state.pop_first_attempt(starting_count)
            if launch is None:
                return
            worker = min(candidates, key=_start_order)
            self._client.begin(worker, launch, in_backlog=True)

    def _has_room(self, worker: WorkerState) -> bool:
        return worker.has_backlog_room(self._backlog_max_of(worker))

    def _backlog_max_of(self, worker: WorkerState) -> int:
        """Return how many attempts may wait in a worker's backlog."""
        running_s = self._clock.now() - _began_s(worker)
        return 1 if running_s > self._timeouts.long_attempt_s else self._state.backlog_max

    def _trim_backlogs(self) -> None:
        """Take attempts out of backlogs that have become too long, behind a long attempt."""
        for worker in self._pool.workers:
            for assigned in worker.live[1 + self._backlog_max_of(worker) :]:
                if assigned.launch:
                    self._move(assigned)

    def _rebalance(self) -> None:
        """Move the attempts that have waited longest in backlogs to free workers."""
        if self._state.launches:
            return
        count = max(0, min(len(self._free_workers), self._may_begin))
        oldest = sorted(self._in_backlogs, key=lambda assigned: assigned.since_s)
        for first in oldest[:count]:
            wait_s = first.since_s + self._timeouts.backlog_s - self._clock.now()
            if wait_s > 0:
                self._schedule_rebalance(wait_s)
                break
            self._move(first)

    def _move(self, assigned: Assignment) -> None:
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
    """Return when a worker's running attempt began."""
    live = worker.live
    return live[0].since_s if live else 0.0


def _start_order(worker: WorkerState) -> tuple[int, float]:
    """Sort key: workers with few attempts first, then the oldest running attempt."""
    return len(worker.live), _began_s(worker)
