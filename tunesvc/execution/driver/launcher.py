"""Starts Ray in a process of its own, for jobs that may register later.

A local Ray takes seconds to start, and so do the database and a study's imports. They start in
parallel. Imports no Ray.
"""

from __future__ import annotations

import itertools
import queue
import sys
import threading
from dataclasses import dataclass, field
from logging import LogRecord

from tunesvc.execution.driver.driver_messages import (
    Begin,
    DriverHeartbeat,
    End,
    ExecutorCall,
    JobMessage,
    JobPayload,
    Join,
    Message,
    StartupRefused,
)
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.execution.driver.machine_claims import HeldClaim
from tunesvc.execution.driver.supervisor import (
    DriverEnded,
    DriverSupervisor,
    DriverTimeouts,
)
from tunesvc.execution.executor import Job
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.util import logs
from tunesvc.util.clock import Clock, SystemClock

RoutedMessage = tuple[DriverProcess | None, JobPayload | DriverHeartbeat | DriverEnded]
"""A message about one job or all jobs, and the driver that sent it."""


@dataclass(frozen=True, slots=True, eq=False)
class JobRegistration:
    """A job registered with a driver and all its replacements."""

    begin: Begin
    messages: queue.SimpleQueue[RoutedMessage] = field(default_factory=queue.SimpleQueue)
    """Messages that concern the job, in order."""


class RayLauncher:
    """Runs a driver process that joins a cluster or starts a local Ray.

    Each `DriverExecutor` registers its job.

    The driver ends with its last job, unless it is kept alive for others.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        local: LocalResources | None = None,
        timeouts: DriverTimeouts | None = None,
        clock: Clock | None = None,
        driver_module: str = "tunesvc.execution.driver.driver_main",
        keep_alive: bool = False,
        claim: HeldClaim | None = None,
    ) -> None:
        """Start the driver. Returns at once.

        Args:
            address: address of a cluster. None means RAY_ADDRESS, or a local Ray without it.
            local: resources of a local Ray.
            timeouts: timeouts for the driver.
            clock: measures the timeouts.
            driver_module: its `main` runs in the driver's process.
            keep_alive: keep the driver until `end`, even without a job.
            claim: the local Ray's claim on this machine, released when Ray has ended.
        """
        self.clock = clock or SystemClock()
        self._keep_alive = keep_alive
        self._claim = claim
        self._registrations: dict[int, JobRegistration] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._driver: DriverProcess | None = None
        """The current driver, once its Ray is up."""
        self._last: Message | DriverEnded | None = None
        join = Join(address, local, sys.argv[0])
        self._supervisor = DriverSupervisor(
            driver_module,
            join,
            self._receive,
            timeouts or DriverTimeouts(),
            self.clock,
        )

    @property
    def driver(self) -> DriverProcess | None:
        """The current driver, once its Ray is up."""
        return self._driver

    def register_job(self, job: Job) -> JobRegistration:
        """Register a job with this driver and all its replacements."""
        registration = JobRegistration(Begin(next(self._numbers), job))
        with self._lock:
            self._registrations[registration.begin.number] = registration
            if isinstance(self._last, (StartupRefused, DriverEnded)):
                # the next driver may take long, so tell the job what is wrong
                registration.messages.put((None, self._last))
        self._supervisor.add_job(registration.begin)
        return registration

    def unregister_job(
        self,
        registration: JobRegistration,
        call: ExecutorCall,
    ) -> None:
        """End a job with its last call.

        With the last one end the driver too, and kill it if it does not end in time.
        """
        self._supervisor.remove_job(registration.begin)
        with self._lock:
            del self._registrations[registration.begin.number]
            is_last = not self._registrations
            if self._driver is not None:
                self._driver.send(call)
        if is_last and not self._keep_alive:
            self.end()

    def end(self) -> None:
        """End the driver and its children. Repeatable."""
        driver = self._driver
        if driver is not None:
            driver.send(End())
        self._supervisor.end(driver)
        if self._claim is not None:
            self._claim.release()

    def _receive(
        self,
        driver: DriverProcess | None,
        message: Message | DriverEnded,
    ) -> None:
        """Pass a message on to the jobs that it concerns. Runs in the supervisor's thread."""
        if isinstance(message, LogRecord):
            logs.receive(message)
            return
        with self._lock:
            self._last = message
            is_down = isinstance(message, (StartupRefused, DriverEnded))
            self._driver = None if is_down else driver
            if not isinstance(message, JobMessage):
                for registration in self._registrations.values():
                    registration.messages.put((driver, message))
            elif message.number in self._registrations:
                self._registrations[message.number].messages.put((driver, message.message))
