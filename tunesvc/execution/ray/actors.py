"""Worker actors on Ray: started, named, found again, ended.

On a shared cluster they are detached, so that they outlive the coordinator, and their names say whose they are:
`KEY:TOKEN-UNIQUE`, the job's key and the fencing token of the coordinator that started them. Imports Ray.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.attempt.spool import Remains, read_remains
from tunesvc.execution.executor import Job, NodeInfo
from tunesvc.execution.ray.cluster_connection import Connection, LocalResources, connect
from tunesvc.execution.ray.probe import with_own_resources
from tunesvc.execution.ray.ray_resources import amounts_of, bundle_of
from tunesvc.execution.ray.worker_backend import WorkerHandle
from tunesvc.execution.worker.worker import Worker

_REMAINS_S = 15.0
"""A node may take to say what a dead worker has left; it may be gone itself."""
_THREADS = 8
"""Of a worker's actor: polls of coordinators that are gone stay open for a while, and others have to get through."""


_INLINE_BYTES = 100_000
"""A job with a larger function, such as one that data is bound to, goes into Ray's object store once."""
_COMING_UP = ("DEPENDENCIES_UNREADY", "PENDING_CREATION")
"""States in which an actor waits for its resources, or for its process."""


@dataclass(frozen=True, slots=True, eq=False)
class RayWorker:
    """A worker that is an actor of Ray. See `WorkerHandle`."""

    name: str
    actor: Any
    group: PlacementGroup | None
    """Of a gang."""

    def kill(self) -> None:
        """Kill its process. Repeatable."""
        ray.kill(self.actor, no_restart=True)

    def end(self) -> None:
        """Kill its process, and free what its gang holds. Repeatable."""
        self.kill()
        if self.group is not None:
            remove_placement_group(self.group)


class RayBackend:
    """The worker actors of one job. See `Fleet`."""

    def __init__(self, job: Job, connection: Connection, *, nodes: Callable[[], list[NodeInfo]] | None = None) -> None:
        """The job gets the resources that its function brings along. `nodes`: asks Ray for them."""
        self.shared = connection.remote
        self.job = job if self.shared else with_own_resources(job)
        self._connection = connection
        self._shared_job = ray.put(self.job) if len(self.job.function or b"") > _INLINE_BYTES else self.job
        self._nodes = nodes or living_nodes
        self._named = re.compile(re.escape(job.key) + r":(\d+)-[0-9a-f]+")

    @classmethod
    def join(cls, job: Job, address: str | None, local: LocalResources | None) -> RayBackend:
        """Use the Ray of this process if there is one, else join `address` (or RAY_ADDRESS), else start a local one.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        return cls(job, connect(address, local, source=job.source))

    def nodes(self) -> list[NodeInfo]:
        """The living nodes. Any thread may ask."""
        return self._nodes()

    def start(self, token: int) -> RayWorker:
        """Ask Ray for one more worker; returns at once."""
        name = f"{self.job.key}:{token}-{uuid4().hex[:12]}" if self.shared else ""
        group = self._make_group(name)
        options = self._options(group) | ({"name": name, "lifetime": "detached"} if name else {})
        orphan_s = self.job.orphan_s if self.shared else None
        actor: Any = ray.remote(Worker).options(**options).remote(self._shared_job, self._folder(), token, orphan_s)
        return RayWorker(name, actor, group)

    def names(self) -> set[str]:
        """The names of all workers of this job that live or come up, whoever started them, and of gangs without one."""
        actors: list[str] = ray.util.list_named_actors()  # of our own namespace
        return {name for name in (*actors, *_group_names()) if self._named.fullmatch(name)}

    def find(self) -> list[RayWorker]:
        """All workers of this job, whoever started them. Asks Ray for each: may take a while.

        What is left of gangs whose worker is gone is freed.
        """
        found = []
        for name in self.names():
            group = _group(name)
            try:
                found.append(RayWorker(name, ray.get_actor(name), group))
            except ValueError:  # it ended meanwhile
                if group is not None:
                    remove_placement_group(group)
        return found

    def pending(self, workers: Sequence[WorkerHandle]) -> list[WorkerHandle]:
        """Those that have not come up yet, so that they never ran anything. Asks Ray for each: may take a while."""
        return [worker for worker in workers if _state(worker.actor) in _COMING_UP]

    def remains(self, info: WorkerInfo, positions: Mapping[str, int]) -> Remains:
        """What a worker that died there has left: on a cluster, a task on its node reads it. May take a while."""
        if not self.shared:
            return read_remains(info.spool, positions)
        there = NodeAffinitySchedulingStrategy(info.node_id, soft=False)
        read = ray.remote(read_remains).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        remains: Remains = ray.get(read.remote(info.spool, dict(positions)), timeout=_REMAINS_S)
        return remains

    def end_named(self, name: str) -> None:
        """End a worker that is known by its name only. Repeatable."""
        group = _group(name)
        with suppress(ValueError):  # gone already
            ray.kill(ray.get_actor(name), no_restart=True)
        if group is not None:
            remove_placement_group(group)

    def token_of(self, name: str) -> int:
        """The fencing token of whoever started the worker of this name."""
        match = self._named.fullmatch(name)
        return int(match[1]) if match else 0

    def close(self) -> None:
        """Leave Ray, and end it if it is our own. Repeatable."""
        self._connection.close()

    def _options(self, group: PlacementGroup | None) -> dict[str, Any]:
        resources = self.job.resources
        options: dict[str, Any] = {
            "num_cpus": resources.cpu,
            "num_gpus": resources.gpu,
            "resources": dict(resources.custom),
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _THREADS,
            "runtime_env": self._runtime_env(),
        }
        if resources.memory:
            options["memory"] = resources.memory
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        return options

    def _make_group(self, name: str) -> PlacementGroup | None:
        resources = self.job.resources
        if resources.workers == 1:
            return None
        bundle = bundle_of(resources) or {"CPU": 0.01}  # Ray refuses a bundle of nothing
        group: PlacementGroup = placement_group(
            [bundle] * resources.workers, strategy="PACK", name=name, lifetime="detached" if name else None
        )
        return group

    def _folder(self) -> str | None:
        """The user's directory as workers see it; None where Ray uploads it and puts them into their copy."""
        return None if self.shared else str(Path(self.job.source or ".").resolve())

    def _runtime_env(self) -> dict[str, Any] | None:
        environment = self.job.environment
        wanted: dict[str, Any] = {}
        if environment.env:
            wanted["env_vars"] = dict(environment.env)
        if environment.pip:
            wanted["pip"] = list(environment.pip)
        return wanted or None


def living_nodes() -> list[NodeInfo]:
    """The nodes that live, as Ray's head knows them. Waits for as long as the head is away. Any thread may ask."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return [
        NodeInfo(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["NodeManagerHostname"],
            amounts_of(node["Resources"]),
            amounts_of(free.get(node["NodeID"], {})),
        )
        for node in nodes
        if node["Alive"]
    ]


def _state(handle: Any) -> str:
    """What Ray's head knows of an actor; `ray.util.state` would ask the dashboard, which not every cluster has."""
    known: dict[str, Any] = ray._private.state.actors(actor_id=handle._actor_id.hex())
    return str(known.get("State", ""))


def _group_names() -> list[str]:
    """Of all placement groups that hold anything, or are about to."""
    table: dict[str, dict[str, Any]] = placement_group_table()
    return [group["name"] for group in table.values() if group["state"] != "REMOVED"]


def _group(name: str) -> PlacementGroup | None:
    try:
        group: PlacementGroup = get_placement_group(name)
    except ValueError:
        return None
    return group
