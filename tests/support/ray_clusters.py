"""A shared Ray cluster and its drivers, each in a process of its own: a process has one Ray, and
drivers get killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tunesvc.execution.executor import AttemptId, Capacity, Event, Job, Launch
from tunesvc.execution.ray.dispatch_state import PollingTimeouts
from tunesvc.spec import ParamValue

QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_failure_threshold": 3,
}
"""Ray notices within a second that a node is gone."""


class Elsewhere:
    """A process that executes calls, one at a time."""

    def __init__(self, make: Callable[[], object]) -> None:
        """`make` is called over there; its result's methods are what `call` calls."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=False)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """True if it runs or is stopped."""
        return self._process.is_alive()

    def call(self, name: str, *values: Any) -> Any:
        """Call a method over there; returns or raises what it does."""
        self._pipe.send((name, values))
        assert self._pipe.poll(120), f"{name} does not return"
        value, error = self._pipe.recv()
        if error is not None:
            raise error
        return value

    def signal(self, number: int) -> None:
        """Send the process a signal; SIGKILL is waited for."""
        os.kill(self.pid, number)
        if number == signal.SIGKILL:
            self._process.join()

    def end(self) -> None:
        """End the process. Repeatable."""
        self._pipe.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    served = make()
    while True:
        try:
            method, values = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = getattr(served, method)(*values), None
        except Exception as error:  # noqa: BLE001  # raised where it was asked for
            answer = None, error
        pipe.send(answer)


class RayCluster:
    """A head without CPUs, and nodes. To be made elsewhere."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK}
        )
        self._nodes: dict[str, Any] = {}

    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self, cpus: int, custom: Mapping[str, float] | None = None) -> str:
        node = self._cluster.add_node(num_cpus=cpus, resources=dict(custom or {}))
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def remove_node(self, node_id: str) -> None:
        """As if its power was cut."""
        self._cluster.remove_node(self._nodes.pop(node_id), allow_graceful=False)

    def drain(self, node_id: str) -> None:
        """As a cloud does that takes a node back; returns when the time is over that was left to
        the node."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_s = time.time() + 1.0
        GcsClient(address=self.address()).drain_node(
            node_id, reason, "spot", int(deadline_s * 1000)
        )
        while time.time() < deadline_s + 0.1:
            time.sleep(0.05)

    def shutdown(self) -> None:
        self._cluster.shutdown()


class Drivers:
    """Makes executors, one after another. To be made elsewhere."""

    def __init__(self) -> None:
        from tunesvc.execution.ray import ray_executor

        self._make = ray_executor.RayExecutor
        self._executor: Any = None

    def join(self, job: Job, address: str, timeouts: PollingTimeouts) -> None:
        self._executor = self._make(job, address=address, timeouts=timeouts)

    def names(self) -> list[str]:
        """Of all workers that live or come up, whosever they are, and of all gangs."""
        import ray

        from tunesvc.execution.gang.gang_groups import group_names

        return sorted({*ray.util.list_named_actors(), *group_names()})

    def groups(self, address: str) -> list[str]:
        """IDs of all placement groups that are not removed, with a name or without."""
        import ray
        from ray.util.placement_group import placement_group_table

        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        table = placement_group_table()
        return [name for name, group in table.items() if group["state"] != "REMOVED"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


class Driver:
    """The `Executor` of a driver process."""

    def __init__(
        self, process: Elsewhere, job: Job, address: str, timeouts: PollingTimeouts
    ) -> None:
        self.process = process
        process.call("join", job, address, timeouts)

    def names(self) -> list[str]:
        names: list[str] = self.process.call("names")
        return names

    def capacity(self) -> Capacity:
        return self.process.call("capacity")  # type: ignore[no-any-return]

    def slots(self) -> int:
        return self.process.call("slots")  # type: ignore[no-any-return]

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        self.process.call("adopt", token, cursors)

    def heartbeats(self) -> Collection[AttemptId]:
        return self.process.call("heartbeats")  # type: ignore[no-any-return]

    def health_error(self) -> str:
        return self.process.call("health_error")  # type: ignore[no-any-return]

    def launch(self, launch: Launch) -> None:
        self.process.call("launch", launch)

    def events(self, timeout_s: float) -> Sequence[Event]:
        return self.process.call("events", timeout_s)  # type: ignore[no-any-return]

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        self.process.call("acknowledge", cursors)

    def answer(self, attempt: AttemptId, name: str, value: ParamValue) -> None:
        self.process.call("answer", attempt, name, value)

    def stop(self, attempt: AttemptId) -> None:
        self.process.call("stop", attempt)

    def kill(self, attempt: AttemptId) -> None:
        self.process.call("kill", attempt)

    def limit_workers(self, most: int | None) -> None:
        self.process.call("limit_workers", most)

    def close(self) -> None:
        self.process.call("close")

    def leave(self) -> None:
        self.process.call("leave")
