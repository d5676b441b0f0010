"""Workers without Ray, whose answers a test gives by hand: a `WorkerBackend` for `RayExecutor`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ray.exceptions import ActorUnavailableError

from tests.support.jobs_and_events import PATIENCE_S
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import AttemptId, Event, Job, Launch, NodeInfo, Payload
from tunesvc.execution.output.spool import Remains
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.execution.ray.worker_backend import WorkerHandle
from tunesvc.execution.worker.worker_protocol import (
    AdoptResponse,
    CommandKind,
    PollRequest,
    PollResponse,
    WorkerCommand,
)


class ScriptedWorker:
    """A worker that keeps its calls open until the test answers them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ended = False
        self.is_pending = False
        self.calls: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.received: list[WorkerCommand] = []
        """All commands that it received, as a worker takes them: once and in order."""
        self._latest = 0
        self._open: dict[str, list[Future[Any]]] = defaultdict(list)

    @property
    def launches(self) -> list[Launch]:
        """Return the launches that it received."""
        return [order.values[0] for order in self.orders("run")]

    def orders(self, kind: CommandKind) -> list[WorkerCommand]:
        """Return the commands of one kind that it received."""
        return [order for order in self.received if order.kind == kind]

    @property
    def actor(self) -> _Handle:
        return _Handle(self)

    def kill(self) -> None:
        self.is_ended = True

    def end(self) -> None:
        self.is_ended = True

    def call(self, method: str, *values: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        self.calls[method].append(values)
        if method == "poll":
            self._listen_to(values[1])
        self._open[method].append(answer)
        return answer

    def answer(self, method: str, value: object = None) -> None:
        """Answer the oldest open call of a method."""
        self._open[method].pop(0).set_result(value)

    def fail(self, method: str, error: Exception | None = None) -> None:
        """Let the oldest open call of a method fail: by default like that of an unreachable
        worker."""
        self._open[method].pop(0).set_exception(
            error or ActorUnavailableError("out of reach", None)
        )

    def found(self, attempt: AttemptId | None) -> None:
        """Tell the coordinator that asks which attempt this worker has."""
        self.answer("adopt", AdoptResponse(() if attempt is None else (attempt,)))

    def say(self, attempt: AttemptId, *events: tuple[int, Payload]) -> None:
        """Have an attempt say numbered events."""
        self.reply(PollResponse([(attempt, events)]))

    def reply(self, reply: PollResponse) -> None:
        """Answer the newest call; those that it has overtaken come back before, as they do from
        a worker."""
        while len(self._open["poll"]) > 1:
            self.answer("poll", PollResponse())
        self.answer("poll", reply)

    def die(self) -> None:
        """Have all that is open fail."""
        for method in self._open:
            while self._open[method]:
                self.fail(method, RuntimeError("it died"))

    def _listen_to(self, call: PollRequest) -> None:
        self.received += [order for number, order in call.commands if number > self._latest]
        self._latest = call.number


class _Handle:
    """Stand-in for an actor's handle."""

    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker

    def __getattr__(self, method: str) -> _Method:
        return _Method(self._worker, method)


class _Method:
    """Stand-in for a method of an actor's handle, and for its reference to an answer."""

    def __init__(self, worker: ScriptedWorker, name: str) -> None:
        self._worker = worker
        self._name = name

    def remote(self, *values: Any) -> _Ref:
        return _Ref(self._worker.call(self._name, *values))


class _Ref:
    def __init__(self, answer: Future[Any]) -> None:
        self._answer = answer

    def future(self) -> Future[Any]:
        return self._answer


class ScriptedBackend:
    """Implements `WorkerBackend` for one node. `earlier`: workers of an earlier coordinator."""

    shared = True

    def __init__(self, job: Job, *earlier: str, cpus: float = 2.0) -> None:
        self.job = job
        self.cpus = cpus
        self.workers = {name: ScriptedWorker(name) for name in earlier}
        """All that were ever started, by name: `TOKEN-NUMBER`."""

    def nodes(self) -> list[NodeInfo]:
        return [NodeInfo("one", "127.0.0.1", "here", {"CPU": self.cpus}, {"CPU": self.cpus})]

    def start(self, token: int) -> ScriptedWorker:
        worker = ScriptedWorker(f"{token}-{len(self.workers)}")
        self.workers[worker.name] = worker
        return worker

    def names(self) -> set[str]:
        return {name for name, worker in self.workers.items() if not worker.is_ended}

    def find(self) -> Sequence[ScriptedWorker]:
        return [self.workers[name] for name in sorted(self.names())]

    def pending(self, workers: Sequence[WorkerHandle]) -> Sequence[WorkerHandle]:
        return [worker for worker in workers if self.workers[worker.name].is_pending]

    def remains(self, place: WorkerInfo, heard: Mapping[str, int]) -> Remains:
        return Remains()

    def end_named(self, name: str) -> None:
        self.workers[name].end()

    def token_of(self, name: str) -> int:
        return int(name.split("-")[0])

    def close(self) -> None:
        pass


def hear_until(executor: RayExecutor, happened: Callable[[list[Event]], object]) -> list[Event]:
    """Listen until something has happened; fails when it does not."""
    heard: list[Event] = []
    deadline = time.monotonic() + PATIENCE_S
    while not happened(heard):
        assert time.monotonic() < deadline, f"did not happen; heard {heard}"
        heard += executor.events(0.01)
    return heard
