"""The Ray of a driver: joined or started once, for all of its jobs. Imports Ray."""

from __future__ import annotations

from dataclasses import replace

from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Job, NodeInfo
from tunesvc.execution.ray.actors import RayBackend, living_nodes
from tunesvc.execution.ray.cluster_connection import LocalResources, connect
from tunesvc.execution.ray.fair_share import FairShares
from tunesvc.execution.ray.ray_executor import RayExecutor
from tunesvc.util.clock import SystemClock

NODES_CACHE_S = 0.2
"""Lifetime of the cached list of nodes."""


class RaySession:
    """A Ray and the jobs that share it. See `driver_main.JoinedRay`."""

    def __init__(
        self,
        address: str | None,
        local: LocalResources | None,
        event_loop: EventLoop,
    ) -> None:
        """Join or start Ray, see `cluster_connection.connect`.

        Raises:
            ExecutorError: Ray could not be started or reached.
        """
        self._connection = connect(address, local)
        self._event_loop = event_loop
        self._fair_shares = FairShares()
        self._clock = SystemClock()
        self._nodes: list[NodeInfo] = []
        self._looked_s = -NODES_CACHE_S

    def executor(self, job: Job) -> RayExecutor:
        """Return an executor for a job. Closing it does not end Ray."""
        backend = RayBackend(
            job,
            replace(self._connection, owned=False),
            nodes=self._cached_nodes,
        )
        executor = RayExecutor(
            job,
            backend=backend,
            event_loop=self._event_loop,
            fair_shares=self._fair_shares,
        )
        self._event_loop.call_soon(executor.warm_up)
        return executor

    def close(self) -> None:
        """Leave Ray, and end it if this process owns it."""
        self._connection.close()

    def _cached_nodes(self) -> list[NodeInfo]:
        """Return the nodes, cached for `NODES_CACHE_S`: many jobs ask for them."""
        now = self._clock.now()
        if now - self._looked_s >= NODES_CACHE_S:
            self._nodes, self._looked_s = living_nodes(), now
        return self._nodes
