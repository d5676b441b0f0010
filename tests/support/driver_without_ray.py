"""A driver process that starts at once: the real `Driver` around an executor that only pretends to
run attempts.

Behaviours are those of the contract. An attempt's n-th event is the same in every driver, as if
workers had kept it; a trial numbered from 100 on outlives its driver, the others end with it. An
address of `slow` or `refuse...` is one where no Ray is found.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path

from tunesvc.errors import ExecutorError, SpecError, UnsatisfiableRequest
from tunesvc.execution.driver.driver_main import Driver, connection_from_arguments
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import (
    AttemptId,
    Capacity,
    Event,
    Failed,
    Finished,
    Job,
    Launch,
    Lost,
    NodeInfo,
    Outcome,
    Payload,
    Reported,
    Started,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.execution.ray.ray_resources import capacity_of
from tunesvc.spec import ParamValue

ASKED = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}'
OUTLIVE_FROM = 100
SLOTS = 2
TICK_S = 0.005


def node_gone(job: Job) -> Path:
    """File that a test creates to take away the node of one driver's Ray."""
    return Path(job.source) / "node-gone"


class Pretended:
    """One attempt."""

    def __init__(self, launch: Launch, asking: bool) -> None:
        self.launch = launch
        self.seq = 0
        self.stopped = False
        self.answer: ParamValue = None
        self.said = self._ask() if asking else self._act()

    def _act(self) -> Iterator[Payload | None]:
        behaviour = self.launch.params.get("behaviour")
        yield Started("node", 1)
        if behaviour == "fails":
            yield Failed("error", "ValueError: broken")
        for step in range(3) if behaviour == "reports" else count():
            if self.stopped and behaviour != "deaf":
                yield StoppedEarly()
            yield Reported(step, {"loss": float(step)})
        yield Finished({"loss": 0.5})

    def _ask(self) -> Iterator[Payload | None]:
        yield Started("node", 1)
        yield SuggestRequested("x", ASKED)
        while self.answer is None:
            yield None
        yield Finished({"loss": float(self.answer)})


class PretendedExecutor:
    """Implements `Executor`, for one thread. Attempts go on whenever the inbox is taken in."""

    handover_s = 0.0

    def __init__(self, job: Job, event_loop: EventLoop) -> None:
        self._job = job
        self._event_loop = event_loop
        self._running: dict[AttemptId, Pretended] = {}
        self._waiting: deque[Launch] = deque()
        self._ready: list[Event] = []
        self._parallelism: int | None = None
        threading.Thread(target=self._keep_ticking, daemon=True).start()

    def capacity(self) -> Capacity:
        if (marker := node_gone(self._job)).exists():
            marker.unlink()
            return capacity_of([])
        total = {"CPU": float(SLOTS)}
        return capacity_of(
            [NodeInfo("node", "node", "node", total, {"CPU": total["CPU"] - len(self._running)})]
        )

    def slots(self) -> int:
        if self._job.resources.gpu:
            raise UnsatisfiableRequest("no node has a GPU")
        return SLOTS

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        for attempt, cursor in cursors.items():
            if attempt.trial_id < OUTLIVE_FROM:
                self._ready.append(Event(attempt, cursor + 1, Lost("it is not there", "gone")))
                continue
            launch = Launch(attempt, attempt.trial_id, {}, 0)
            kept = self._running[attempt] = Pretended(launch, self._job.define_by_run)
            kept.seq = len(list(islice(kept.said, cursor)))

    def heartbeats(self) -> Collection[AttemptId]:
        return [*self._running, *(launch.attempt for launch in self._waiting)]

    def health_error(self) -> str:
        return ""

    def launch(self, launch: Launch) -> None:
        self._waiting.append(launch)
        self._parallelism = launch.parallelism

    def events(self, timeout_s: float) -> Sequence[Event]:
        self._event_loop.run_once(timeout_s)
        ready, self._ready = self._ready, []
        return ready

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        pass

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        if attempt in self._running:
            self._running[attempt].answer = value

    def stop(self, attempt: AttemptId) -> None:
        if attempt in self._running:
            self._running[attempt].stopped = True
        self._withdraw(attempt, StoppedEarly())

    def kill(self, attempt: AttemptId) -> None:
        if kept := self._running.pop(attempt, None):
            self._ready.append(Event(attempt, kept.seq + 1, Lost("killed")))
        self._withdraw(attempt, Lost("killed before a worker was free"))

    def limit_workers(self, most: int | None) -> None:
        pass

    def close(self) -> None:
        if self._job.study == "never ends":
            time.sleep(3600)

    def leave(self) -> None:
        pass

    def _withdraw(self, attempt: AttemptId, outcome: Outcome) -> None:
        for launch in [launch for launch in self._waiting if launch.attempt == attempt]:
            self._waiting.remove(launch)
            self._ready.append(Event(attempt, 1, outcome))

    def _keep_ticking(self) -> None:
        while True:
            time.sleep(TICK_S)
            self._event_loop.call_soon(self._tick)

    def _tick(self) -> None:
        while self._waiting and len(self._running) < min(SLOTS, self._parallelism or SLOTS):
            launch = self._waiting.popleft()
            self._running[launch.attempt] = Pretended(launch, self._job.define_by_run)
        for attempt, kept in list(self._running.items()):
            if (payload := next(kept.said)) is not None:
                kept.seq += 1
                self._ready.append(Event(attempt, kept.seq, payload))
            if isinstance(payload, Outcome):
                del self._running[attempt]


class PretendedRay:
    """Implements `driver_main.JoinedRay`."""

    def __init__(
        self,
        address: str | None,
        local: LocalResources | None,
        event_loop: EventLoop,
    ) -> None:
        self._event_loop = event_loop
        if address == "slow":
            time.sleep(3600)
        if address == "refuse":
            raise ExecutorError("no cluster is there")
        if address == "refuse-spec":
            raise SpecError("bundles differ")
        if address == "refuse-strangely":
            raise ZeroDivisionError("of all things")

    def executor(self, job: Job) -> PretendedExecutor:
        if job.study == "cannot be run":
            raise SpecError("its bundles differ")
        return PretendedExecutor(job, self._event_loop)

    def close(self) -> None:
        pass


def main() -> None:
    """Run the driver process of `RayLauncher(driver_module="tests.support.driver_without_ray")`."""
    Driver(connection_from_arguments(), PretendedRay).run()
