"""Starts the Rays for a process's studies, one per cluster, or uses the Ray of the process.

A local Ray gets the part of this machine that its studies claim. Imports Ray only if the process
uses it already.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tunesvc.errors import MachineBusy, SpecError
from tunesvc.execution.driver.driver_executor import DriverExecutor
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.machine_claims import Demand, Machine, MachineClaim
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.objectives.source_digest import mentions_resources
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.spec import StudySpec

ExecutorMaker = Callable[[Job, StudySpec], Executor]


class RayPool:
    """Creates executors, with one Ray per cluster, and ends the Rays that it started.

    Any thread may use it.
    """

    def __init__(self, *, of_several: bool = False) -> None:
        """Make an empty pool.

        `of_several`: more studies may follow later, so a local Ray claims all that is free.
        """
        self._of_several = of_several
        self._launchers: dict[str | None, RayLauncher] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def prestart(self, specs: Sequence[StudySpec], source: str | None) -> RayPool:
        """Start the Ray of these studies before it is needed, unless the machine is busy."""
        specs = [spec for spec in specs if spec.agents != "only"]
        if specs and not _is_in_use():
            with suppress(MachineBusy):
                self._launch(specs, source)
        return self

    def executor(self, job: Job, spec: StudySpec) -> Executor:
        """Return an executor for a job, see `ray_executor`."""
        if _is_in_use():
            return _on_ray_in_use(job)
        return DriverExecutor(job, self._launch([spec], job.source))

    def end(self) -> None:
        """End the Rays, even if they are still in use. Repeatable."""
        for launcher in self._launchers.values():
            launcher.end()
        self._launchers.clear()

    def _launch(self, specs: Sequence[StudySpec], source: str | None) -> RayLauncher:
        """Return the launcher for a cluster."""
        key = specs[0].cluster
        with self._lock:
            if key not in self._launchers:
                self._launchers[key] = _launch_ray(
                    specs,
                    source,
                    of_several=self._of_several,
                    keep_alive=True,
                )
            return self._launchers[key]


def ray_executor(job: Job, spec: StudySpec) -> Executor:
    """Return an executor on the Ray of this process, or on a new one that ends with the executor.

    Raises:
        MachineBusy: other commands use the resources that a local Ray needs.
    """
    if _is_in_use():
        return _on_ray_in_use(job)
    return DriverExecutor(job, _launch_ray([spec], job.source))


def is_shared(address: str | None) -> bool:
    """Return True for a cluster, which others may use too. False for a local Ray."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def require_cluster_of_servers(spec: StudySpec) -> None:
    """Refuse `cluster: local` where RAY_ADDRESS names a cluster: it would run on a server's host.

    Raises:
        SpecError: the study has it.
    """
    if spec.cluster == "local" and is_shared(None):
        raise SpecError(
            f"study {spec.name!r} has `cluster: local`, and the servers' cluster is "
            f"{os.environ['RAY_ADDRESS']}: they run no code of studies on their own machines. "
            "Leave `cluster` out"
        )


def _launch_ray(
    specs: Sequence[StudySpec],
    source: str | None,
    *,
    of_several: bool = False,
    keep_alive: bool = False,
) -> RayLauncher:
    """Start the Ray of studies. A local one gets the part of this machine that they claim."""
    address = specs[0].cluster
    if is_shared(address):
        return RayLauncher(address, keep_alive=keep_alive)
    folder = Path(source or ".")
    may_bring_gpus = any(mentions_resources(spec.entrypoint, folder) for spec in specs)
    demand = Demand.of(specs, may_bring_gpus=may_bring_gpus)
    if of_several:
        demand = replace(demand, cpu=None, gpu=None)
    machine = Machine.here()
    held_claim = machine.claim([spec.name for spec in specs], demand)
    try:
        local = _local(machine, demand, held_claim.claim)
        return RayLauncher(
            address,
            local=local,
            keep_alive=keep_alive,
            claim=held_claim,
        )
    except BaseException:
        held_claim.release()
        raise


def _local(
    machine: Machine,
    demand: Demand,
    claim: MachineClaim,
) -> LocalResources | None:
    """Return the resources of a local Ray. None means all of the machine.

    A claim that meets the demand does not limit the CPUs, because `parallelism` may be raised
    during the run.
    """
    cpu = None
    if claim.cpu < (machine.cpus if demand.cpu is None else demand.cpu):
        cpu = math.ceil(max(math.floor(claim.cpu), demand.least_cpu))
    has_all_gpus = demand.gpu == 0 or claim.gpus == machine.gpus
    if cpu is None and has_all_gpus:
        return None
    local = LocalResources.from_environment()
    if has_all_gpus:
        return replace(local, cpu=cpu, devices=None)
    return replace(local, cpu=cpu, gpu=len(claim.gpus), devices=claim.gpus)


def _on_ray_in_use(job: Job) -> Executor:
    from tunesvc.execution.ray.ray_executor import RayExecutor

    return RayExecutor(job)


def _is_in_use() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
