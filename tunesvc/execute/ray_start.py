"""Ray starting in a process of its own while its job is not known yet, or nobody has asked for it yet.

A local Ray takes seconds to start, and so do the database and the imports of whoever runs a study: they need not wait
for each other. Also says which Ray that is: the one that this process uses already, else one in a driver process.
Imports no Ray.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tunesvc.clock import Clock, SystemClock
from tunesvc.execute.cluster import LocalResources
from tunesvc.execute.executor import Executor, Job
from tunesvc.execute.keeper import Keeper, Patience, Word
from tunesvc.execute.messages import Begin, Join
from tunesvc.spec import StudySpec

ExecutorMaker = Callable[[Job, StudySpec], Executor]


class RayStart:
    """A driver process that joins a cluster or starts a local Ray; a `RayProcess` goes on with it."""

    def __init__(
        self,
        address: str | None = None,
        *,
        source: str | None = None,
        local: LocalResources | None = None,
        patience: Patience | None = None,
        clock: Clock | None = None,
        driver: str = "tunesvc.execute.driver",
    ) -> None:
        """Start the driver; returns at once.

        Args:
            address: of a cluster; without it RAY_ADDRESS, else a local Ray.
            source: the user's directory, of which a cluster gets a copy.
            local: what a local Ray claims to have.
            patience: how long the driver is waited for.
            clock: whose seconds those are.
            driver: the module whose `main` the driver's process runs.
        """
        self.clock = clock or SystemClock()
        self.inbox: queue.SimpleQueue[Word] = queue.SimpleQueue()
        join = Join(address, local, source, sys.argv[0])
        self.keeper = Keeper(driver, join, self.inbox, patience or Patience(), self.clock)

    def begin(self, job: Job) -> None:
        """Tell this driver, and each that takes its place, the job."""
        self.keeper.tell(Begin(job))

    def cancel(self) -> None:
        """End the driver and what it started. Repeatable."""
        self.keeper.end(None)


def ray_executor(job: Job, spec: StudySpec) -> Executor:
    """The Ray that this process uses already, else one that lives in a process of its own."""
    if _is_in_use():
        from tunesvc.execute.ray_executor import RayExecutor

        return RayExecutor(job)
    return _in_process(job, RayStart(spec.cluster, source=job.source))


@contextmanager
def ray_ahead(address: str | None, source: str | None) -> Iterator[ExecutorMaker]:
    """Start Ray now; what is yielded does what `ray_executor` does, the first time with that Ray.

    A Ray that nobody has asked for until the end is ended.
    """
    if _is_in_use():
        yield ray_executor
        return
    ahead = [RayStart(address, source=source)]

    def make_executor(job: Job, spec: StudySpec) -> Executor:
        if ahead and (spec.cluster, job.source) == (address, source):
            return _in_process(job, ahead.pop())
        return ray_executor(job, spec)

    try:
        yield make_executor
    finally:
        for start in ahead:
            start.cancel()


def _in_process(job: Job, start: RayStart) -> Executor:
    from tunesvc.execute.ray_process import RayProcess

    return RayProcess(job, start)


def _is_in_use() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
