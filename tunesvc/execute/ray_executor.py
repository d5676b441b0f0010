"""The Executor on Ray: one warm actor per slot, reused from attempt to attempt of the job.

Attempts wait in a queue of ours, not in Ray's: whichever worker comes up or becomes free first takes the next one.
Each live attempt has one long-poll under way, whose answer arrives in one inbox, so the cost is per event and not per
worker. Meant for one thread: Ray's own threads only put into the inbox.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tunesvc.clock import SystemClock
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.cluster import LocalResources, connect
from tunesvc.execute.deaths import outcome_of_death
from tunesvc.execute.executor import (
    AttemptId,
    Capacity,
    Event,
    Job,
    Launch,
    Lost,
    Outcome,
    Payload,
    Yielded,
)
from tunesvc.execute.probe import with_own_resources
from tunesvc.execute.requests import bundle_of, capacity_of, slots_on
from tunesvc.execute.worker import Reply, Worker
from tunesvc.spec import ParamValue

POLL_S = 30.0
"""How long a worker keeps a poll open when nothing happens."""
RETRY_S = 0.5
"""How long a worker that cannot be reached is left alone."""
_THREADS = 4
"""Of a worker's actor: one for the poll, others so that stop and answer get through."""


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor of ours."""

    actor: Any
    group: PlacementGroup | None
    is_up: bool = False
    running: _Running | None = None


@dataclass(slots=True, eq=False)
class _Running:
    """An attempt on a worker."""

    launch: Launch
    worker: _Worker
    delivered: int = 0
    acknowledged: int = 0
    heard_of: bool = False
    """Whether the worker is known to have it; what is sent before could overtake the launch."""
    stop_wanted: bool = False
    killed: bool = False


@dataclass(slots=True)
class _Waiting:
    """Launches that no worker has taken yet, in order."""

    launches: deque[Launch] = field(default_factory=deque)

    def remove(self, attempt: AttemptId) -> bool:
        """Take an attempt out; whether it was there."""
        for launch in self.launches:
            if launch.attempt == attempt:
                self.launches.remove(launch)
                return True
        return False


class RayExecutor:
    """Runs the attempts of one job on Ray. See `Executor`."""

    def __init__(self, job: Job, *, address: str | None = None, local: LocalResources | None = None) -> None:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._connection = connect(address, local, source=job.source)
        self._job = job if self._connection.remote else with_own_resources(job)
        self._clock = SystemClock()
        self._waiting = _Waiting()
        self._running: dict[AttemptId, _Running] = {}
        self._workers: list[_Worker] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ready: list[Event] = []
        self._closed = False

    # --- the protocol -----------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """What the cluster's living nodes have in all."""
        return capacity_of(_nodes())

    def slots(self) -> int:
        """How many attempts the cluster can hold at a time. See `Executor.slots`."""
        return slots_on(_nodes(), self._job.resources)

    def launch(self, launch: Launch) -> None:
        """Queue the attempt for the next free worker; starts one more worker if none is idle."""
        self._waiting.launches.append(launch)
        self._assign()
        self._start_workers()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet; waits up to `timeout_s` for the first."""
        deadline = self._clock.now() + timeout_s
        self._take_in(0.0)
        while not self._ready and (left_s := deadline - self._clock.now()) > 0:
            self._take_in(left_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Let the workers forget what is recorded, with the next poll."""
        for attempt, cursor in cursors.items():
            if running := self._running.get(attempt):
                running.acknowledged = max(running.acknowledged, cursor)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        """Send the value of a parameter that an attempt asked for."""
        if running := self._running.get(attempt):
            running.worker.actor.answer.remote(attempt, name, value)

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop; one that no worker has taken yet ends at once."""
        if self._waiting.remove(attempt):
            self._ready.append(Event(attempt, 1, Yielded()))
        elif running := self._running.get(attempt):
            running.stop_wanted = True
            if running.heard_of:
                running.worker.actor.stop.remote(attempt)

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; `Lost` follows when Ray says that it is dead."""
        if self._waiting.remove(attempt):
            self._ready.append(Event(attempt, 1, Lost("killed before a worker was free")))
        elif (running := self._running.get(attempt)) and not running.killed:
            running.killed = True
            ray.kill(running.worker.actor, no_restart=True)

    def close(self) -> None:
        """End all workers, and Ray if it is our own."""
        if self._closed:
            return
        self._closed = True
        self._waiting.launches.clear()
        self._running.clear()
        for worker in list(self._workers):
            self._end_worker(worker)
        self._connection.close()

    # --- workers --------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        """One for each launch that waits, as far as the cluster can hold them: it never grants more than that."""
        coming = sum(not worker.is_up for worker in self._workers)
        wanted = len(self._waiting.launches) - coming
        if wanted > 0:
            for _ in range(min(wanted, self._room())):
                self._start_worker()

    def _room(self) -> int:
        try:
            return self.slots() - len(self._workers)
        except UnsatisfiableRequest:  # a node went away meanwhile: one worker waits in Ray until it comes back
            return 1 - len(self._workers)

    def _start_worker(self) -> None:
        group = self._make_group()
        actor: Any = ray.remote(Worker).options(**self._actor_options(group)).remote(self._job, self._folder())
        worker = _Worker(actor, group)
        self._workers.append(worker)
        self._when_done(actor.hello.remote(), partial(self._came_up, worker))

    def _actor_options(self, group: PlacementGroup | None) -> dict[str, Any]:
        asked = self._job.resources
        options: dict[str, Any] = {
            "num_cpus": asked.cpu,
            "num_gpus": asked.gpu,
            "resources": dict(asked.custom),
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _THREADS,
            "runtime_env": self._runtime_env(),
        }
        if asked.memory:
            options["memory"] = asked.memory
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        return options

    def _make_group(self) -> PlacementGroup | None:
        asked = self._job.resources
        if asked.workers == 1:
            return None
        bundle = bundle_of(asked) or {"CPU": 0.01}  # Ray refuses a bundle of nothing
        group: PlacementGroup = placement_group([bundle] * asked.workers, strategy="PACK")
        return group

    def _folder(self) -> str | None:
        """The user's directory as workers see it; None where Ray uploads it and puts them into their copy."""
        return None if self._connection.remote else str(Path(self._job.source or ".").resolve())

    def _runtime_env(self) -> dict[str, Any] | None:
        environment = self._job.environment
        wanted: dict[str, Any] = {}
        if environment.env:
            wanted["env_vars"] = dict(environment.env)
        if environment.pip:
            wanted["pip"] = list(environment.pip)
        return wanted or None

    def _came_up(self, worker: _Worker, _place: object, error: BaseException | None) -> None:
        if worker not in self._workers:
            return
        if error is None:
            worker.is_up = True
            self._assign()
            return
        self._end_worker(worker)
        if self._waiting.launches:
            launch = self._waiting.launches.popleft()
            self._ready.append(Event(launch.attempt, 1, outcome_of_death(error, killed=False)))

    def _end_worker(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        ray.kill(worker.actor, no_restart=True)
        if worker.group is not None:
            remove_placement_group(worker.group)

    # --- attempts -------------------------------------------------------------------------------------

    def _assign(self) -> None:
        for worker in self._workers:
            if self._waiting.launches and worker.is_up and worker.running is None:
                self._begin(worker, self._waiting.launches.popleft())

    def _begin(self, worker: _Worker, launch: Launch) -> None:
        running = worker.running = _Running(launch, worker)
        self._running[launch.attempt] = running
        self._when_done(worker.actor.run.remote(launch, POLL_S), partial(self._heard, running))

    def _poll(self, running: _Running) -> None:
        if self._closed:
            return
        answer = running.worker.actor.poll.remote(
            running.launch.attempt, running.delivered, running.acknowledged, POLL_S
        )
        self._when_done(answer, partial(self._heard, running))

    def _heard(self, running: _Running, reply: Reply | None, error: BaseException | None) -> None:
        if self._running.get(running.launch.attempt) is not running:
            return  # closed meanwhile
        if isinstance(error, ActorUnavailableError):  # out of reach, not known to be dead: the outbox keeps everything
            self._later(partial(self._poll, running))
            return
        if reply is None or not reply.is_known:
            self._died(running, error or RuntimeError("the launch did not reach it"))
            return
        if not running.heard_of:
            running.heard_of = True
            if running.stop_wanted:
                running.worker.actor.stop.remote(running.launch.attempt)
        for seq, payload in reply.events:
            self._deliver(running, seq, payload)
        if reply.events and isinstance(reply.events[-1][1], Outcome):
            self._ended(running, reusable=reply.is_reusable)
        else:
            self._poll(running)

    def _deliver(self, running: _Running, seq: int, payload: Payload) -> None:
        running.delivered = seq
        self._ready.append(Event(running.launch.attempt, seq, payload))

    def _died(self, running: _Running, error: BaseException) -> None:
        self._deliver(running, running.delivered + 1, outcome_of_death(error, killed=running.killed))
        self._ended(running, reusable=False)

    def _ended(self, running: _Running, *, reusable: bool) -> None:
        worker = running.worker
        del self._running[running.launch.attempt]
        worker.running = None
        if not reusable or running.killed or self._job.environment.isolation == "process":
            self._end_worker(worker)
        self._assign()
        self._start_workers()

    # --- the inbox ------------------------------------------------------------------------------------

    def _when_done(self, ref: Any, then: Callable[[Any, BaseException | None], None]) -> None:
        """Have `then` called with the value or the error, in the thread that listens to events."""

        def put(future: Any) -> None:
            error = future.exception()
            value = None if error else future.result()
            self._inbox.put(lambda: then(value, error))

        ref.future().add_done_callback(put)

    def _later(self, action: Callable[[], None]) -> None:
        timer = threading.Timer(RETRY_S, self._inbox.put, [action])
        timer.daemon = True
        timer.start()

    def _take_in(self, timeout_s: float) -> None:
        """Handle what has arrived; waits for the first when nothing has."""
        try:
            self._inbox.get(timeout=timeout_s)() if timeout_s else self._inbox.get_nowait()()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return


def _nodes() -> list[dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
