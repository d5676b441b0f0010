"""The Executor on Ray: one warm actor per slot, reused from attempt to attempt of the job.

Puts together who does what: `worker_pool` has the actors, `scheduler` gives them what waits, `worker_client` hears what
attempts say, `adoption` goes on with an earlier coordinator's. Meant for one thread: others only put into the inbox,
and count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import AttemptId, Capacity, Event, Job, Launch, Lost, StoppedEarly
from tunesvc.execution.ray.actors import RayBackend
from tunesvc.execution.ray.adoption import WorkerAdoption
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.execution.ray.dispatch_state import HANDOVER_S, PendingQueue, PollingTimeouts
from tunesvc.execution.ray.fair_share import FairShares
from tunesvc.execution.ray.ray_resources import capacity_of
from tunesvc.execution.ray.scheduler import Scheduler
from tunesvc.execution.ray.worker_backend import WorkerBackend
from tunesvc.execution.ray.worker_client import WorkerClient
from tunesvc.execution.ray.worker_pool import WorkerPool
from tunesvc.spec import ParamValue
from tunesvc.util.clock import SystemClock


class RayExecutor:
    """Runs the attempts of one job on Ray. See `Executor`."""

    handover_s = HANDOVER_S

    def __init__(
        self,
        job: Job,
        *,
        address: str | None = None,
        local: LocalResources | None = None,
        timeouts: PollingTimeouts | None = None,
        backend: WorkerBackend | None = None,
        event_loop: EventLoop | None = None,
        fair_shares: FairShares | None = None,
    ) -> None:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        With `fleet` the workers come from there. Several in one thread have one inbox and share what there is.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._backend = backend = backend or RayBackend.join(job, address, local)
        self._event_loop = event_loop = event_loop or EventLoop()
        timeouts = timeouts or PollingTimeouts()
        self._clock = SystemClock()
        self._queue = PendingQueue()
        self._pool = pool = WorkerPool(
            backend,
            event_loop,
            fair_shares or FairShares(),
            attempts=lambda: self._scheduler.attempts,
            schedule=self._schedule,
            on_start_failed=lambda error: self._scheduler.fail_first(error),
        )
        self._client = WorkerClient(pool, self._queue, event_loop, timeouts, schedule=self._schedule)
        self._scheduler = Scheduler(pool, self._queue, self._client, event_loop, timeouts)
        self._adoption = WorkerAdoption(backend, pool, self._client, event_loop, timeouts, schedule=self._schedule)

    def capacity(self) -> Capacity:
        """What the cluster's living nodes have in all. Any thread may ask."""
        return capacity_of(self._backend.nodes())

    def slots(self) -> int:
        """How many attempts may be under way at a time. See `Executor.slots`. Any thread may ask."""
        self._event_loop.call_soon(self._check_cluster)
        return self._pool.limit()

    def warm_up(self) -> None:
        """Take part with the other jobs, and start the first worker of a local Ray before there is an attempt."""
        self._pool.warm_up()

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Find the workers of earlier coordinators; those of a local Ray ended with it."""
        self._adoption.begin(token, cursors)

    def heartbeats(self) -> Collection[AttemptId]:
        """Those whose worker has answered since the last call, and those that wait for one."""
        return [*self._client.take_heartbeats(), *(launch.attempt for launch in self._queue.launches)]

    def health_error(self) -> str:
        """Nothing that this process would survive, but for being too late."""
        return _SUPERSEDED if self._pool.is_superseded else ""

    def launch(self, launch: Launch) -> None:
        """Queue the attempt for the next free worker; starts one more worker if none is idle."""
        self._scheduler.add(launch)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet; waits up to `timeout_s` for the first."""
        deadline = self._clock.now() + timeout_s
        self._event_loop.run_once(0.0)
        while not (events := self._client.take_events()) and (left_s := deadline - self._clock.now()) > 0:
            self._event_loop.run_once(left_s)
        return events

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next poll; free those whose attempt is over."""
        self._client.acknowledge(cursors)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value of a parameter that an attempt asked for."""
        if assigned := self._client.live(attempt):
            self._client.send(assigned, "answer", name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop; one that no worker has taken yet ends at once."""
        if self._queue.remove(attempt):
            self._client.finish_unstarted(attempt, StoppedEarly())
        elif assigned := self._client.live(attempt):
            self._client.stop(assigned)

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; `Lost` follows when Ray says that it is dead, or does not say so for long."""
        if self._queue.remove(attempt):
            self._client.finish_unstarted(attempt, Lost("killed before a worker was free"))
        elif assigned := self._client.live(attempt):
            self._client.kill(assigned)
            if assigned.worker is None:  # it may have been the last one for which silent workers were kept
                self._adoption.conclude()

    def close(self) -> None:
        """End all workers, and Ray if it is our own. Repeatable."""
        self._forget_attempts()
        self._pool.close()

    def leave(self) -> None:
        """Leave the cluster and what runs on it; whatever runs nothing is ended. On a local Ray as `close`."""
        self._forget_attempts()
        self._pool.leave()

    def _forget_attempts(self) -> None:
        self._queue.launches.clear()
        self._client.clear()

    def _check_cluster(self) -> None:
        self._schedule()  # there may be more nodes than before
        self._adoption.check_for_others()

    def _schedule(self) -> None:
        self._scheduler.schedule()


_SUPERSEDED = (
    "another coordinator has taken over the study's workers on this cluster. If it is gone too, interrupt this one and "
    "say `tune resume`, which goes on with them"
)
