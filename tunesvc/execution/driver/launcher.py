"""Ray in a process of its own, for one job or several, which may be known long after Ray starts.

A local Ray takes seconds to start, and so do the database and the imports of whoever runs a study: they need not wait
for each other.
Imports no Ray.
"""

from __future__ import annotations

import itertools
import queue
import sys
import threading
from dataclasses import dataclass, field

from tunesvc.execution.driver.driver_messages import (
    Begin,
    DriverHeartbeat,
    End,
    Farewell,
    JobCommand,
    JobMessage,
    JobPayload,
    Join,
    Message,
    StartupRefused,
)
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.execution.driver.machine_claims import HeldClaim
from tunesvc.execution.driver.supervisor import DriverEnded, DriverSupervisor, DriverTimeouts
from tunesvc.execution.executor import Job
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.util.clock import Clock, SystemClock

Word = tuple[DriverProcess | None, JobPayload | DriverHeartbeat | DriverEnded]
"""What the driver behind a link said to one job, or to all."""


@dataclass(frozen=True, slots=True, eq=False)
class JobRegistration:
    """A job's place among those of a driver, and of each that takes its place."""

    begin: Begin
    inbox: queue.SimpleQueue[Word] = field(default_factory=queue.SimpleQueue)
    """What drivers say that concerns the job, in order."""


class RayLauncher:
    """A driver process that joins a cluster or starts a local Ray; each `RayProcess` takes a seat in it.

    It ends with the last of them, unless it is kept for others that may come.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        source: str | None = None,
        local: LocalResources | None = None,
        patience: DriverTimeouts | None = None,
        clock: Clock | None = None,
        driver: str = "tunesvc.execution.driver.driver_main",
        is_kept: bool = False,
        holding: HeldClaim | None = None,
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
        self._seats: dict[int, JobRegistration] = {}
        self._numbers = itertools.count(1)
        self._routing = threading.Lock()
        self._link: DriverProcess | None = None
        """The driver of now, as soon as its Ray is up."""
        self._last: Message | DriverEnded | None = None
        join = Join(address, local, source, sys.argv[0])
        self._keeper = DriverSupervisor(driver, join, self._hear, patience or DriverTimeouts(), self.clock)

    @property
    def link(self) -> DriverProcess | None:
        """To the driver of now, as soon as its Ray is up."""
        return self._link

    def register_job(self, job: Job) -> JobRegistration:
        """Tell this driver, and each that takes its place, the job."""
        seat = JobRegistration(Begin(next(self._numbers), job))
        with self._routing:
            self._seats[seat.begin.number] = seat
            if isinstance(self._last, (StartupRefused, DriverEnded)):  # nobody has come up since
                seat.inbox.put((None, self._last))
        self._keeper.tell(seat.begin)
        return seat

    def unregister_job(self, seat: JobRegistration, farewell: Farewell) -> None:
        """End a job. With the last one the driver ends, and is waited for; whatever does not end in time is killed."""
        self._keeper.forget(seat.begin)
        with self._routing:
            del self._seats[seat.begin.number]
            is_last = not self._seats
            if self._link is not None:
                self._link.send(JobCommand(seat.begin.number, farewell))
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

    def _hear(self, link: DriverProcess | None, message: Message | DriverEnded) -> None:
        """Pass on what a driver says, in the keeper's thread."""
        with self._routing:
            self._last = message
            self._link = None if isinstance(message, (StartupRefused, DriverEnded)) else link
            if not isinstance(message, JobMessage):
                for seat in self._seats.values():
                    seat.inbox.put((link, message))
            elif message.number in self._seats:
                self._seats[message.number].inbox.put((link, message.message))
