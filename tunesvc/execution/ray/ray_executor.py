"""The Executor on Ray. Its workers are actors that run one attempt of the job after another.

`dispatch_state` holds the attempts. Around it work `worker_pool` (starts and ends workers),
`scheduler` (assigns attempts), `worker_client` (sends commands and receives events) and `adoption`
(finds workers of earlier coordinators). Belongs to one thread. Other threads may only call
`capacity` and `slots`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Event,
    Job,
    Launch,
    Lost,
    StoppedEarly,
)
from tunesvc.execution.ray.actors import RayBackend
from tunesvc.execution.ray.adoption import WorkerAdoption
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.execution.ray.dispatch_state import HANDOVER_S, DispatchState, PollingTimeouts
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
        """Use the Ray of this process, or join a cluster, or start a local Ray.

        The cluster is the one at `address`, or else at RAY_ADDRESS. Executors of one thread share
        an event loop and fair shares.

        Args:
            job: the attempts' job.
            address: address of a cluster.
            local: resources of a local Ray.
            timeouts: timeouts and intervals.
            backend: starts the workers instead of Ray.
            event_loop: receives results and timers.
            fair_shares: the jobs that share the cluster.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._backend = backend = backend or RayBackend.join(job, address, local)
        self._event_loop = event_loop = event_loop or EventLoop()
        timeouts = timeouts or PollingTimeouts()
        self._clock = SystemClock()
        self._state = state = DispatchState()
        self._pool = pool = WorkerPool(
            backend,
            event_loop,
            fair_shares or FairShares(),
            state,
        )
        self._client = client = WorkerClient(pool, state, event_loop, timeouts)
        self._scheduler = Scheduler(pool, state, client, event_loop, timeouts)
        self._adoption = WorkerAdoption(
            backend,
            pool,
            client,
            state,
            event_loop,
            timeouts,
        )

    def capacity(self) -> Capacity:
        """Return the total resources of the living nodes. Any thread may call this."""
        return capacity_of(self._backend.nodes())

    def slots(self) -> int:
        """Return how many attempts may be launched at a time, see `Executor.slots`.

        Any thread may call this.
        """
        self._event_loop.call_soon(self._check_cluster)
        return self._pool.limit()

    def warm_up(self) -> None:
        """Join the driver's other jobs, and start the first worker of a local Ray early."""
        self._pool.warm_up()

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Adopt the attempts of earlier coordinators. On a local Ray they have ended with it."""
        self._adoption.begin(token, cursors)

    def heartbeats(self) -> Collection[AttemptId]:
        """Return attempts whose worker has answered since the last call, or that have none."""
        queued = [launch.attempt for launch in self._state.launches]
        return [*self._client.take_heartbeats(), *queued]

    def health_error(self) -> str:
        """Return an error if another coordinator has the workers. Other errors end this process."""
        return _SUPERSEDED if self._pool.is_superseded else ""

    def launch(self, launch: Launch) -> None:
        """Queue an attempt for the next free worker, and start one more worker if none is idle."""
        self._scheduler.add(launch)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events not delivered yet. Waits up to `timeout_s` for the first."""
        deadline_s = self._clock.now() + timeout_s
        self._event_loop.run_once(0.0)
        while True:
            events = self._state.take_events()
            left_s = deadline_s - self._clock.now()
            if events or left_s <= 0:
                return events
            self._event_loop.run_once(left_s)

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let workers forget recorded events, and free those with a finished attempt."""
        self._client.acknowledge(cursors)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value that an attempt has asked for."""
        if assigned := self._state.live(attempt):
            self._client.send(assigned, "answer", name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop. One without a worker ends at once."""
        if self._state.remove_launch(attempt):
            self._state.finish_unstarted(attempt, StoppedEarly())
        elif assigned := self._state.live(attempt):
            self._client.stop(assigned)

    def kill(self, attempt: AttemptId) -> None:
        """Kill the attempt's process.

        `Lost` follows when Ray confirms its death, or after a timeout.
        """
        if self._state.remove_launch(attempt):
            self._state.finish_unstarted(attempt, Lost("killed before a worker was free"))
        elif assigned := self._state.live(attempt):
            self._client.kill(assigned)
            # maybe the last one for which unresponsive workers were kept
            if assigned.worker is None:
                self._adoption.conclude()

    def limit_workers(self, most: int | None) -> None:
        """End idle workers while there are more, from now on."""
        self._state.workers_max = most
        self._state.schedule()

    def close(self) -> None:
        """End all workers, and Ray if this process owns it. Repeatable."""
        self._state.clear()
        self._pool.close()

    def leave(self) -> None:
        """Leave the cluster.

        Busy workers stay, idle ones end. On a local Ray the same as `close`.
        """
        self._state.clear()
        self._pool.leave()

    def _check_cluster(self) -> None:
        self._state.schedule()  # there may be more nodes than before
        self._adoption.check_for_others()


_SUPERSEDED = (
    "another coordinator has taken over the study's workers on this cluster. "
    "If it is gone too, interrupt this one and run `tune resume`, which adopts them"
)
