"""Host of a worker's process: its location, the folder of its output, and how the process ends.

Imports Ray only when a method of `RayHost` is called.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tunesvc.data.prepared_data import PreparedData
from tunesvc.execution import ray_internals
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import Job
from tunesvc.execution.gang.gang_home import GangHome, nodes_of_bundles
from tunesvc.execution.gang.shared_parts import provide_shared

_END_S = 5.0
"""Time for Ray to end a process that asks for it."""


class WorkerHost(Protocol):
    """Host of a worker's process."""

    @property
    def shared_parts(self) -> Mapping[str, Any]:
        """References to the files of the study's data, for other processes of a gang."""
        ...

    @property
    def is_remote(self) -> bool:
        """True if absolute paths of the process that started the study are not valid here."""
        ...

    def locate(self, job: Job, spool: str) -> WorkerInfo:
        """Return the location of this process. `spool` is the folder of its output."""
        ...

    def spool_folder(self) -> Path:
        """Return a folder for this process's output, which outlives the process."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Return environment variables that processes of objectives need."""
        ...

    def provide_data(self, prepared: PreparedData) -> None:
        """Make the study's data available to trials of this process, and to their processes."""
        ...

    def end_process(self, info: WorkerInfo) -> None:
        """End this process, and free what it holds. May return if that fails."""
        ...


class RayHost:
    """Ray, for workers that are actors."""

    is_remote = False

    def __init__(self, shared_parts: Mapping[str, Any] | None = None) -> None:
        """Run in an actor.

        Args:
            shared_parts: references to the files of the study's data in Ray's object store.
        """
        self.shared_parts = dict(shared_parts or {})

    def locate(self, job: Job, spool: str) -> WorkerInfo:
        """Return the location of this actor."""
        import ray

        context = ray.get_runtime_context()
        group, home = None, None
        bundle_nodes: tuple[str, ...] = ()
        if job.resources.workers > 1:
            group = ray.util.get_current_placement_group()
            name = context.get_actor_name() or ""
            home = GangHome(name, context.namespace, context.get_node_id())
            bundle_nodes = nodes_of_bundles(group)
        node = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        devices = tuple(context.get_accelerator_ids().get("GPU", ()))
        return WorkerInfo(
            node,
            os.getpid(),
            devices,
            group,
            context.get_node_id(),
            spool,
            home,
            bundle_nodes,
        )

    def spool_folder(self) -> Path:
        """Return this process's folder, among Ray's logs: they outlive the process."""
        logs = ray_internals.log_folder() or tempfile.mkdtemp(prefix="tunesvc-")
        return Path(logs, f"tunesvc-{os.getpid()}")

    def environment(self) -> Mapping[str, str]:
        """Return the cluster's address.

        Ray's functions join the cluster as a job of their own, instead of starting another one.
        """
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return {}
        return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}

    def provide_data(self, prepared: PreparedData) -> None:
        """Map the data from Ray's object store, and write files if this node has none.

        Done at once: it stays mapped after the driver that owns the objects has ended.
        """
        provide_shared(prepared, self.shared_parts)

    def end_process(self, info: WorkerInfo) -> None:
        """End this process through Ray, which then does not count it as a crash, and free its
        gang's bundles."""
        import ray
        from ray.util.placement_group import remove_placement_group

        with suppress(
            Exception,
        ):  # without Ray's head it does not matter how the process ends
            if info.placement_group is not None:
                remove_placement_group(info.placement_group)
            ray.kill(ray.get_runtime_context().current_actor)
            time.sleep(_END_S)
