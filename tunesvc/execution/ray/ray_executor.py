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
        pace: PollingTimeouts | None = None,
        fleet: WorkerBackend | None = None,
        inbox: EventLoop | None = None,
        shares: FairShares | None = None,
    ) -> None:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        With `fleet` the workers come from there. Several in one thread have one inbox and share what there is.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._fleet = fleet = fleet or RayBackend.join(job, address, local)
        self._inbox = inbox = inbox or EventLoop()
        pace = pace or PollingTimeouts()
        self._clock = SystemClock()
        self._waiting = PendingQueue()
        self._workers = workers = WorkerPool(
            fleet,
            inbox,
            shares or FairShares(),
            attempts=lambda: self._assignment.attempts,
            schedule=self._schedule,
            never_came_up=lambda error: self._assignment.fail_first(error),
        )
        self._conversation = WorkerClient(workers, self._waiting, inbox, pace, schedule=self._schedule)
        self._assignment = Scheduler(workers, self._waiting, self._conversation, inbox, pace)
        self._adoption = WorkerAdoption(fleet, workers, self._conversation, inbox, pace, schedule=self._schedule)

    def capacity(self) -> Capacity:
        """What the cluster's living nodes have in all. Any thread may ask."""
        return capacity_of(self._fleet.nodes())

    def slots(self) -> int:
        """How many attempts may be under way at a time. See `Executor.slots`. Any thread may ask."""
        self._inbox.put(self._look_around)
        return self._workers.limit()

    def warm_up(self) -> None:
        """Take part with the other jobs, and start the first worker of a local Ray before there is an attempt."""
        self._workers.warm_up()

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Find the workers of earlier coordinators; those of a local Ray ended with it."""
        self._adoption.begin(token, cursors)

    def alive(self) -> Collection[AttemptId]:
        """Those whose worker has answered since the last call, and those that wait for one."""
        return [*self._conversation.signs_of_life(), *(launch.attempt for launch in self._waiting.launches)]

    def trouble(self) -> str:
        """Nothing that this process would survive, but for being too late."""
        return _SUPERSEDED if self._workers.is_superseded else ""

    def launch(self, launch: Launch) -> None:
        """Queue the attempt for the next free worker; starts one more worker if none is idle."""
        self._assignment.add(launch)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet; waits up to `timeout_s` for the first."""
        deadline = self._clock.now() + timeout_s
        self._inbox.take_in(0.0)
        while not (events := self._conversation.take_events()) and (left_s := deadline - self._clock.now()) > 0:
            self._inbox.take_in(left_s)
        return events

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next poll; free those whose attempt is over."""
        self._conversation.acknowledge(cursors)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Send the value of a parameter that an attempt asked for."""
        if running := self._conversation.live(attempt):
            self._conversation.tell(running, "answer", name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop; one that no worker has taken yet ends at once."""
        if self._waiting.remove(attempt):
            self._conversation.never_began(attempt, StoppedEarly())
        elif running := self._conversation.live(attempt):
            self._conversation.stop(running)

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; `Lost` follows when Ray says that it is dead, or does not say so for long."""
        if self._waiting.remove(attempt):
            self._conversation.never_began(attempt, Lost("killed before a worker was free"))
        elif running := self._conversation.live(attempt):
            self._conversation.kill(running)
            if running.slot is None:  # it may have been the last one for which silent workers were kept
                self._adoption.conclude()

    def close(self) -> None:
        """End all workers, and Ray if it is our own. Repeatable."""
        self._forget_attempts()
        self._workers.close()

    def leave(self) -> None:
        """Leave the cluster and what runs on it; whatever runs nothing is ended. On a local Ray as `close`."""
        self._forget_attempts()
        self._workers.leave()

    def _forget_attempts(self) -> None:
        self._waiting.launches.clear()
        self._conversation.end()

    def _look_around(self) -> None:
        self._schedule()  # there may be more nodes than before
        self._adoption.look_around()

    def _schedule(self) -> None:
        self._assignment.schedule()


_SUPERSEDED = (
    "another coordinator has taken over the study's workers on this cluster. If it is gone too, interrupt this one and "
    "say `tune resume`, which goes on with them"
)
