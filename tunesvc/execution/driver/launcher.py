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
    CloseCommand,
    DriverHeartbeat,
    End,
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

RoutedMessage = tuple[DriverProcess | None, JobPayload | DriverHeartbeat | DriverEnded]
"""What the driver behind a link said to one job, or to all."""


@dataclass(frozen=True, slots=True, eq=False)
class JobRegistration:
    """A job's place among those of a driver, and of each that takes its place."""

    begin: Begin
    messages: queue.SimpleQueue[RoutedMessage] = field(default_factory=queue.SimpleQueue)
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
        timeouts: DriverTimeouts | None = None,
        clock: Clock | None = None,
        driver_module: str = "tunesvc.execution.driver.driver_main",
        keep_alive: bool = False,
        claim: HeldClaim | None = None,
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
        self._keep_alive = keep_alive
        self._claim = claim
        self._registrations: dict[int, JobRegistration] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._driver: DriverProcess | None = None
        """The driver of now, as soon as its Ray is up."""
        self._last: Message | DriverEnded | None = None
        join = Join(address, local, source, sys.argv[0])
        self._supervisor = DriverSupervisor(
            driver_module, join, self._receive, timeouts or DriverTimeouts(), self.clock
        )

    @property
    def driver(self) -> DriverProcess | None:
        """To the driver of now, as soon as its Ray is up."""
        return self._driver

    def register_job(self, job: Job) -> JobRegistration:
        """Tell this driver, and each that takes its place, the job."""
        registration = JobRegistration(Begin(next(self._numbers), job))
        with self._lock:
            self._registrations[registration.begin.number] = registration
            if isinstance(self._last, (StartupRefused, DriverEnded)):  # nobody has come up since
                registration.messages.put((None, self._last))
        self._supervisor.add_job(registration.begin)
        return registration

    def unregister_job(self, registration: JobRegistration, command: CloseCommand) -> None:
        """End a job. With the last one the driver ends, and is waited for; whatever does not end in time is killed."""
        self._supervisor.remove_job(registration.begin)
        with self._lock:
            del self._registrations[registration.begin.number]
            is_last = not self._registrations
            if self._driver is not None:
                self._driver.send(JobCommand(registration.begin.number, command))
        if is_last and not self._keep_alive:
            self.end()

    def end(self) -> None:
        """End the driver and what it started here. Repeatable."""
        driver = self._driver
        if driver is not None:
            driver.send(End())
        self._supervisor.end(driver)
        if self._claim is not None:
            self._claim.release()

    def _receive(self, driver: DriverProcess | None, message: Message | DriverEnded) -> None:
        """Pass on what a driver says, in the keeper's thread."""
        with self._lock:
            self._last = message
            self._driver = None if isinstance(message, (StartupRefused, DriverEnded)) else driver
            if not isinstance(message, JobMessage):
                for registration in self._registrations.values():
                    registration.messages.put((driver, message))
            elif message.number in self._registrations:
                self._registrations[message.number].messages.put((driver, message.message))
