"""Starts, names, finds and ends worker actors on Ray.

On a shared cluster the actors are detached, so that they outlive the coordinator. Their names
identify the owner: `KEY:TOKEN-UNIQUE`, with the job's key and the fencing token of the coordinator
that started them. Imports Ray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from tunesvc.data.prepared_data import PreparedData, part_path
from tunesvc.execution import ray_internals
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import Job, NodeInfo
from tunesvc.execution.gang.gang_groups import (
    find_group,
    group_names,
    make_group,
    options_in_group,
)
from tunesvc.execution.gang.gang_home import CONCURRENCY_GROUP
from tunesvc.execution.output.remote_spools import read_on_nodes
from tunesvc.execution.output.spool import Remains, read_remains
from tunesvc.execution.ray.cluster_connection import Connection, LocalResources, connect
from tunesvc.execution.ray.probe import with_own_resources
from tunesvc.execution.ray.ray_resources import amounts_of, bundle_of
from tunesvc.execution.ray.runtime_env import RuntimeEnv
from tunesvc.execution.ray.worker_backend import WorkerHandle
from tunesvc.execution.worker.worker import Worker
from tunesvc.execution.worker.worker_host import RayHost
from tunesvc.preparation.data_store import place_on_this_machine
from tunesvc.spec import Environment

_REMAINS_S = 15.0
"""Timeout for reading a dead worker's output on its node, which may be gone too."""
_THREADS = 8
"""Threads of a worker's actor.

Polls of dead coordinators stay open for a while and must not block others.
"""
_GANG_THREADS = 4
"""Threads for calls of the gang's other processes."""
_INLINE_BYTES = 100_000
"""A job with a larger function, for example with bound data, goes into Ray's object store once."""
_STARTING = ("DEPENDENCIES_UNREADY", "PENDING_CREATION")
"""States in which an actor waits for its resources or its process."""


@dataclass(frozen=True, slots=True, eq=False)
class RayWorker:
    """A worker as a Ray actor. See `WorkerHandle`."""

    name: str
    actor: Any
    group: PlacementGroup | None
    """The placement group of a gang, or None."""

    def kill(self) -> None:
        """Kill its process. Repeatable."""
        ray.kill(self.actor, no_restart=True)

    def end(self) -> None:
        """Kill its process and free its gang's resources. Repeatable."""
        self.kill()
        if self.group is not None:
            remove_placement_group(self.group)


class RayBackend:
    """The worker actors of one job. See `WorkerBackend`."""

    def __init__(
        self,
        job: Job,
        connection: Connection,
        *,
        nodes: Callable[[], list[NodeInfo]] | None = None,
    ) -> None:
        """On a local Ray the job gets the resources that its function requests.

        `nodes` replaces `living_nodes`.
        """
        self.shared = connection.remote
        self.job = job if self.shared else with_own_resources(job)
        self._connection = connection
        is_large = len(self.job.function or b"") > _INLINE_BYTES
        self._shared_job = ray.put(self.job) if is_large else self.job
        self._nodes = nodes or living_nodes
        self._runtime_env = RuntimeEnv(
            self._environment(),
            self.job.source if self.shared else None,
            is_snapshot=self.job.is_snapshot,
        )
        self._shared_parts = {} if job.data is None else _share(job.data)
        self._named = re.compile(re.escape(job.key) + r":(\d+)-[0-9a-f]+")

    @classmethod
    def join(
        cls,
        job: Job,
        address: str | None,
        local: LocalResources | None,
    ) -> RayBackend:
        """Use the Ray of this process, or join a cluster, or start a local Ray.

        The cluster is the one at `address`, or else at RAY_ADDRESS.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        return cls(job, connect(address, local))

    def nodes(self) -> list[NodeInfo]:
        """Return the living nodes. Any thread may call this."""
        return self._nodes()

    def start(self, token: int) -> RayWorker:
        """Start one more worker. Returns at once."""
        name = f"{self.job.key}:{token}-{uuid4().hex[:12]}" if self.shared else ""
        group = self._make_group(name)
        options = self._options(group)
        if name:
            options |= {"name": name, "lifetime": "detached"}
        elif group is not None:
            options["name"] = f"gang-{uuid4().hex[:12]}"  # its other processes find it by that
        orphan_s = self.job.orphan_s if self.shared else None
        groups = {} if group is None else {CONCURRENCY_GROUP: _GANG_THREADS}
        decorate: Any = ray.remote  # its stubs lack the argument
        remote = decorate(concurrency_groups=groups)(Worker).options(**options)
        host = RayHost(self._shared_parts)
        actor: Any = remote.remote(self._shared_job, self._folder(), token, orphan_s, host)
        return RayWorker(name, actor, group)

    def names(self) -> set[str]:
        """Return the names of all workers of this job, and of gangs without a worker.

        Includes those of other coordinators.
        """
        actors: list[str] = ray.util.list_named_actors()  # in our own namespace
        names = [*actors, *group_names()]
        return {name for name in names if self._named.fullmatch(name)}

    def find(self) -> list[RayWorker]:
        """Return all workers of this job, other coordinators' included. One call to Ray for each.

        Frees gangs without a worker.
        """
        found = []
        for name in self.names():
            group = find_group(name)
            try:
                found.append(RayWorker(name, ray.get_actor(name), group))
            except ValueError:  # it ended meanwhile
                if group is not None:
                    remove_placement_group(group)
        return found

    def pending(self, workers: Sequence[WorkerHandle]) -> list[WorkerHandle]:
        """Return the workers that are not up yet. One call to Ray for each."""
        states = {worker: ray_internals.actor_state(worker.actor) for worker in workers}
        return [worker for worker in workers if states[worker] in _STARTING]

    def remains(self, info: WorkerInfo, positions: Mapping[str, int]) -> Remains:
        """Return a dead worker's unread output. On a cluster, a task on its node reads it."""
        if not self.shared:
            return read_remains(info.spool, positions)
        spool = info.node_id, info.spool
        return read_on_nodes({spool: positions}, _REMAINS_S).get(spool, Remains())

    def end_named(self, name: str) -> None:
        """End a worker by its name. Repeatable."""
        group = find_group(name)
        with suppress(ValueError):  # gone already
            ray.kill(ray.get_actor(name), no_restart=True)
        if group is not None:
            remove_placement_group(group)

    def token_of(self, name: str) -> int:
        """Return the fencing token of the coordinator that started the worker of this name."""
        match = self._named.fullmatch(name)
        return int(match[1]) if match else 0

    def close(self) -> None:
        """Leave Ray, and end it if this process owns it. Repeatable."""
        self._connection.close()

    def _options(self, group: PlacementGroup | None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _THREADS,
            "runtime_env": self._runtime_env.as_ray(),
        }
        if group is not None:
            return {**options, **options_in_group(group)}
        resources = self.job.resources
        options |= {
            "num_cpus": resources.cpu,
            "num_gpus": resources.gpu,
            "resources": dict(resources.custom),
        }
        if resources.memory:
            options["memory"] = resources.memory
        return options

    def _make_group(self, name: str) -> PlacementGroup | None:
        resources = self.job.resources
        if resources.workers == 1:
            return None
        return make_group(bundle_of(resources), resources.workers, resources.strategy, name)

    def _folder(self) -> str | None:
        """Return the user's directory for workers.

        None on a cluster, where Ray uploads a copy and starts in it.
        """
        if self.shared:
            return None
        return str(Path(self.job.source or ".").resolve())

    def _environment(self) -> Environment:
        """Return the environment of workers.

        A gang's actors inherit it from the trial's, and import from where that does. On a cluster
        they do so by themselves, from the copy of the user's directory.
        """
        environment = self.job.environment
        if self.shared or self.job.resources.workers == 1:
            return environment
        variables = {"PYTHONPATH": self._import_path(), **environment.env}
        return Environment(**environment.model_dump() | {"env": variables})

    def _import_path(self) -> str:
        folder = Path(self.job.source or ".").resolve()
        paths = [folder, *(folder / entry for entry in self.job.interpreter.import_path)]
        there = os.environ.get("PYTHONPATH", "")
        entries = [str(path) for path in paths if path.is_dir()]
        return os.pathsep.join(dict.fromkeys([*entries, *filter(None, [there])]))


def _share(prepared: PreparedData) -> dict[str, Any]:
    """Put the files of the data into Ray's object store, once for all workers of this driver.

    Raises:
        ArtifactStoreError: its store does not have them.
    """
    import numpy as np

    folder = place_on_this_machine(prepared)
    paths = {name: part_path(folder, name) for name in prepared.parts}
    # A plain array: Ray copies a `memmap` for each reader.
    arrays = {name: np.asarray(np.memmap(path, np.uint8, "r")) for name, path in paths.items()}
    return {name: ray.put(array) for name, array in arrays.items()}


def living_nodes() -> list[NodeInfo]:
    """Return the living nodes. Blocks while Ray's head is unreachable. Any thread may call this."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free = ray_internals.free_resources_by_node()
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
