"""The Rays that a process starts for its studies: one for each cluster, or the Ray that it uses already.

A local Ray gets what its studies claim of this machine. Imports no Ray until one is in use.
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

from tunesvc.errors import MachineBusy
from tunesvc.execution.driver.driver_executor import RayProcess
from tunesvc.execution.driver.launcher import RayLauncher
from tunesvc.execution.driver.machine_claims import Demand, Machine, MachineClaim
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.objectives.source_digest import mentions_resources
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.spec import StudySpec

ExecutorMaker = Callable[[Job, StudySpec], Executor]


class RayPool:
    """Makes executors, those of one cluster on one Ray, and ends the Rays that it started. For several threads."""

    def __init__(self, *, of_several: bool = False) -> None:
        """`of_several`: one local Ray is for studies that are not all known when it starts, and gets what is free."""
        self._of_several = of_several
        self._launchers: dict[tuple[str | None, str | None], RayLauncher] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def prestart(self, specs: Sequence[StudySpec], source: str | None) -> RayPool:
        """Start the Ray of these studies before one of them asks for it, unless the machine is busy by then."""
        if not _is_in_use():
            with suppress(MachineBusy):
                self._launch(specs, source)
        return self

    def executor(self, job: Job, spec: StudySpec) -> Executor:
        """Of a job: see `ray_executor`."""
        return _on_ray_in_use(job) if _is_in_use() else RayProcess(job, self._launch([spec], job.source))

    def end(self) -> None:
        """End the Rays, whoever still uses them. Repeatable."""
        for launcher in self._launchers.values():
            launcher.end()
        self._launchers.clear()

    def _launch(self, specs: Sequence[StudySpec], source: str | None) -> RayLauncher:
        """A cluster gets one copy of one folder from each driver; workers of a local Ray find any."""
        address = specs[0].cluster
        key = address, source if is_shared(address) else None
        with self._lock:
            if key not in self._launchers:
                self._launchers[key] = _launch_ray(specs, source, of_several=self._of_several, keep_alive=True)
            return self._launchers[key]


def ray_executor(job: Job, spec: StudySpec) -> Executor:
    """The Ray that this process uses already, else one in a process that ends with the executor.

    Raises:
        MachineBusy: a local one would need what other commands have.
    """
    return _on_ray_in_use(job) if _is_in_use() else RayProcess(job, _launch_ray([spec], job.source))


def is_shared(address: str | None) -> bool:
    """Whether this is a cluster that others use too, and no Ray of our own."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def _launch_ray(
    specs: Sequence[StudySpec], source: str | None, *, of_several: bool = False, keep_alive: bool = False
) -> RayLauncher:
    """Begin to start the Ray of studies; a local one on what they have claimed of this machine."""
    address = specs[0].cluster
    if is_shared(address):
        return RayLauncher(address, source=source, keep_alive=keep_alive)
    folder = Path(source or ".")
    bringing = [spec for spec in specs if mentions_resources(spec.entrypoint, folder)]
    demand = Demand.of(specs, may_bring_gpus=bool(bringing))
    if of_several:
        demand = replace(demand, cpu=None, gpu=None)
    machine = Machine.here()
    held_claim = machine.claim([spec.name for spec in specs], demand)
    try:
        local = _local(machine, demand, held_claim.claim)
        return RayLauncher(address, source=source, local=local, keep_alive=keep_alive, claim=held_claim)
    except BaseException:
        held_claim.release()
        raise


def _local(machine: Machine, demand: Demand, claim: MachineClaim) -> LocalResources | None:
    """Return what a local Ray may have; None is all.

    Studies that say their `parallelism` may be given more while they run: what they have claimed bounds no CPUs.
    """
    has_enough_cpus = claim.cpu >= (machine.cpus if demand.cpu is None else demand.cpu)
    cpu = None if has_enough_cpus else math.ceil(max(math.floor(claim.cpu), demand.least_cpu))
    devices = None if demand.gpu == 0 or claim.gpus == machine.gpus else claim.gpus
    if cpu is None and devices is None:
        return None
    local = LocalResources.from_environment()
    return replace(local, cpu=cpu, gpu=local.gpu if devices is None else len(devices), devices=devices)


def _on_ray_in_use(job: Job) -> Executor:
    from tunesvc.execution.ray.ray_executor import RayExecutor

    return RayExecutor(job)


def _is_in_use() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
