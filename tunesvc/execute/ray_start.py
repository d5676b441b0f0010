"""Ray in a process of its own, for one job or several, which may be known long after Ray starts.

A local Ray takes seconds to start, and so do the database and the imports of whoever runs a study: they need not wait
for each other. Also says which Ray that is: the one that this process uses already, else one in a driver process.
Imports no Ray.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesvc.clock import Clock, SystemClock
from tunesvc.errors import MachineBusy
from tunesvc.execute.cluster import LocalResources
from tunesvc.execute.executor import Executor, Job
from tunesvc.execute.keeper import Ended, Keeper, Patience
from tunesvc.execute.link import Link
from tunesvc.execute.machine import Claim, Demand, Holding, Machine
from tunesvc.execute.messages import Begin, End, Farewell, For, From, JobMessage, Join, Message, Pulse, Refused
from tunesvc.execute.source import speaks_of_resources
from tunesvc.spec import StudySpec

ExecutorMaker = Callable[[Job, StudySpec], Executor]

Word = tuple[Link | None, JobMessage | Pulse | Ended]
"""What the driver behind a link said to one job, or to all."""


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """A job's place among those of a driver, and of each that takes its place."""

    begin: Begin
    inbox: queue.SimpleQueue[Word] = field(default_factory=queue.SimpleQueue)
    """What drivers say that concerns the job, in order."""


class RayStart:
    """A driver process that joins a cluster or starts a local Ray; each `RayProcess` takes a seat in it.

    It ends with the last of them, unless it is kept for others that may come.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        source: str | None = None,
        local: LocalResources | None = None,
        patience: Patience | None = None,
        clock: Clock | None = None,
        driver: str = "tunesvc.execute.driver",
        is_kept: bool = False,
        holding: Holding | None = None,
    ) -> None:
        """Start the driver; returns at once.

        Args:
            address: of a cluster; without it RAY_ADDRESS, else a local Ray.
            source: the user's directory, of which a cluster gets a copy.
            local: what a local Ray claims to have.
            patience: how long the driver is waited for.
            clock: whose seconds those are.
            driver: the module whose `main` the driver's process runs.
            is_kept: until `end`, even when no job is left.
            holding: what a local Ray has of this machine; released when that has ended.
        """
        self.clock = clock or SystemClock()
        self._is_kept = is_kept
        self._holding = holding
        self._seats: dict[int, Seat] = {}
        self._numbers = itertools.count(1)
        self._routing = threading.Lock()
        self._link: Link | None = None
        """The driver of now, as soon as its Ray is up."""
        self._last: Message | Ended | None = None
        join = Join(address, local, source, sys.argv[0])
        self._keeper = Keeper(driver, join, self._hear, patience or Patience(), self.clock)

    @property
    def link(self) -> Link | None:
        """To the driver of now, as soon as its Ray is up."""
        return self._link

    def sit_down(self, job: Job) -> Seat:
        """Tell this driver, and each that takes its place, the job."""
        seat = Seat(Begin(next(self._numbers), job))
        with self._routing:
            self._seats[seat.begin.number] = seat
            if isinstance(self._last, (Refused, Ended)):  # nobody has come up since
                seat.inbox.put((None, self._last))
        self._keeper.tell(seat.begin)
        return seat

    def stand_up(self, seat: Seat, farewell: Farewell) -> None:
        """End a job. With the last one the driver ends, and is waited for; whatever does not end in time is killed."""
        self._keeper.forget(seat.begin)
        with self._routing:
            del self._seats[seat.begin.number]
            is_last = not self._seats
            if self._link is not None:
                self._link.send(For(seat.begin.number, farewell))
        if is_last and not self._is_kept:
            self.end()

    def end(self) -> None:
        """End the driver and what it started here. Repeatable."""
        told = self._link
        if told is not None:
            told.send(End())
        self._keeper.end(told)
        if self._holding is not None:
            self._holding.release()

    def _hear(self, link: Link | None, message: Message | Ended) -> None:
        """Pass on what a driver says, in the keeper's thread."""
        with self._routing:
            self._last = message
            self._link = None if isinstance(message, (Refused, Ended)) else link
            if not isinstance(message, From):
                for seat in self._seats.values():
                    seat.inbox.put((link, message))
            elif message.number in self._seats:
                self._seats[message.number].inbox.put((link, message.message))


class Rays:
    """Makes executors, those of one cluster on one Ray, and ends the Rays that it started. For several threads."""

    def __init__(self, *, of_several: bool = False) -> None:
        """`of_several`: one local Ray is for studies that are not all known when it starts, and gets what is free."""
        self._of_several = of_several
        self._starts: dict[tuple[str | None, str | None], RayStart] = {}
        self._starting = threading.Lock()

    def __enter__(self) -> Rays:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ahead(self, specs: Sequence[StudySpec], source: str | None) -> Rays:
        """Start the Ray of these studies before one of them asks for it, unless the machine is busy by then."""
        if not _is_in_use():
            with suppress(MachineBusy):
                self._start(specs, source)
        return self

    def executor(self, job: Job, spec: StudySpec) -> Executor:
        """Of a job: see `ray_executor`."""
        return _on_ray_in_use(job) if _is_in_use() else _in_process(job, self._start([spec], job.source))

    def end(self) -> None:
        """End the Rays, whoever still uses them. Repeatable."""
        for start in self._starts.values():
            start.end()
        self._starts.clear()

    def _start(self, specs: Sequence[StudySpec], source: str | None) -> RayStart:
        """A cluster gets one copy of one folder from each driver; workers of a local Ray find any."""
        address = specs[0].cluster
        key = address, source if is_shared(address) else None
        with self._starting:
            if key not in self._starts:
                self._starts[key] = _begun(specs, source, of_several=self._of_several, is_kept=True)
            return self._starts[key]


def ray_executor(job: Job, spec: StudySpec) -> Executor:
    """The Ray that this process uses already, else one in a process that ends with the executor.

    Raises:
        MachineBusy: a local one would need what other commands have.
    """
    return _on_ray_in_use(job) if _is_in_use() else _in_process(job, _begun([spec], job.source))


def is_shared(address: str | None) -> bool:
    """Whether this is a cluster that others use too, and no Ray of our own."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def _begun(
    specs: Sequence[StudySpec], source: str | None, *, of_several: bool = False, is_kept: bool = False
) -> RayStart:
    """Begin to start the Ray of studies; a local one on what they have claimed of this machine."""
    address = specs[0].cluster
    if is_shared(address):
        return RayStart(address, source=source, is_kept=is_kept)
    folder = Path(source or ".")
    brings = [spec for spec in specs if speaks_of_resources(spec.entrypoint, folder)]
    demand = Demand.of(specs, may_bring_gpus=bool(brings))
    if of_several:
        demand = replace(demand, cpu=None, gpu=None)
    machine = Machine.here()
    holding = machine.claim([spec.name for spec in specs], demand)
    try:
        local = _local(machine, demand, holding.claim)
        return RayStart(address, source=source, local=local, is_kept=is_kept, holding=holding)
    except BaseException:
        holding.release()
        raise


def _local(machine: Machine, demand: Demand, claim: Claim) -> LocalResources | None:
    """Return what a local Ray may have; None is all.

    Studies that say their `parallelism` may be given more while they run: what they have claimed bounds no CPUs.
    """
    has_all_it_wants = claim.cpu >= (machine.cpus if demand.cpu is None else demand.cpu)
    cpu = None if has_all_it_wants else math.ceil(max(math.floor(claim.cpu), demand.least_cpu))
    devices = None if demand.gpu == 0 or claim.gpus == machine.gpus else claim.gpus
    if cpu is None and devices is None:
        return None
    local = LocalResources.from_environment()
    return replace(local, cpu=cpu, gpu=local.gpu if devices is None else len(devices), devices=devices)


def _in_process(job: Job, start: RayStart) -> Executor:
    from tunesvc.execute.ray_process import RayProcess

    return RayProcess(job, start)


def _on_ray_in_use(job: Job) -> Executor:
    from tunesvc.execute.ray_executor import RayExecutor

    return RayExecutor(job)


def _is_in_use() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
