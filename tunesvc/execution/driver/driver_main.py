"""The process that is the Ray driver: `python -m tunesvc.execution.driver.driver_main FD`, started by `driver_process`.

FD is its end of a socket. It ends at once when the other end is closed: a local Ray ends with it, attempts on a
shared cluster run on. The main thread alone listens to attempts and carries out commands, of all jobs; one reads
commands, one asks Ray what it has, because nobody knows how long that takes while Ray's head is away, and one takes up
each job. Only `main` imports Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import NoReturn, Protocol

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.driver.driver_messages import (
    AttemptEvents,
    AttemptHeartbeats,
    Begin,
    Close,
    Cluster,
    Command,
    DriverCommand,
    DriverHeartbeat,
    End,
    JobCommand,
    JobMessage,
    Leave,
    Message,
    StartupRefused,
)
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.util.clock import SystemClock

HEARTBEAT_S = 1.0
"""How often it gives a sign of life."""
CLUSTER_POLL_S = 2.0
"""How often it asks what Ray has."""


class JoinedRay(Protocol):
    """A Ray, started or joined."""

    def executor(self, job: Job) -> Executor:
        """Runs a job's attempts; whatever it waits for arrives in the driver's inbox. Any thread may call this."""
        ...

    def close(self) -> None:
        """Leave Ray, and end it if it is our own."""
        ...


class RayConnector(Protocol):
    """Joins a cluster or starts a local Ray."""

    def __call__(
        self, address: str | None, local: LocalResources | None, source: str | None, event_loop: EventLoop
    ) -> JoinedRay: ...


@dataclass(slots=True)
class HostedJob:
    """A job's executor, which is there when the job is taken up."""

    executor: Executor | None = None
    deferred: list[Command] = field(default_factory=list)
    """What it has to be told then."""


class Driver:
    """Holds an executor for each job and obeys the other end of the connection."""

    def __init__(self, connection: Connection, join: RayConnector) -> None:
        self._connection = connection
        self._connector = join
        self._ray: JoinedRay
        self._event_loop = EventLoop()
        self._jobs: dict[int, HostedJob] = {}
        self._send_lock = threading.Lock()
        self._has_new_job = threading.Event()
        """Whether a job waits to hear what Ray has."""
        self._clock = SystemClock()
        self._answered_s = self._clock.now()
        self._heartbeat_s = -HEARTBEAT_S

    def run(self) -> None:
        """Connect to Ray, then listen and obey until told to end, or until the other end is closed."""
        join, *commands = self._connection.recv()
        threading.Thread(target=self._receive_commands, args=(commands,), name="commands", daemon=True).start()
        sys.argv[0] = join.program
        try:
            self._ray = self._connector(join.address, join.local, join.source, self._event_loop)
        except Exception as error:  # noqa: BLE001  # whatever it is, the coordinator raises it
            self._send(StartupRefused.by(error))
            return
        self._answered_s = self._clock.now()
        threading.Thread(target=self._watch_cluster, name="cluster", daemon=True).start()
        while True:
            self._send_heartbeats()
            self._event_loop.run_once(HEARTBEAT_S)
            for number, hosted in [*self._jobs.items()]:
                if hosted.executor is not None and (events := hosted.executor.events(0.0)):
                    self._send(JobMessage(number, AttemptEvents(events)))

    def _send_heartbeats(self) -> None:
        now = self._clock.now()
        if now - self._heartbeat_s < HEARTBEAT_S:
            return
        self._heartbeat_s = now
        self._send(DriverHeartbeat(now - self._answered_s))
        for number, hosted in self._jobs.items():
            if hosted.executor is not None:
                self._send(
                    JobMessage(number, AttemptHeartbeats(hosted.executor.heartbeats(), hosted.executor.health_error()))
                )

    # --- commands -----------------------------------------------------------------------------------

    def _receive_commands(self, commands: Sequence[DriverCommand]) -> NoReturn:
        """Hand what we are told to the main thread, which alone may use executors."""
        while True:
            if commands:
                self._event_loop.call_soon(partial(self._handle_all, commands))
            try:
                commands = self._connection.recv()
            except (EOFError, OSError):  # whom we work for is gone
                _kill_process_group()

    def _handle_all(self, commands: Sequence[DriverCommand]) -> None:
        for command in commands:
            self._handle(command)

    def _handle(self, command: DriverCommand) -> None:
        match command:
            case Begin(number, job):
                self._jobs[number] = HostedJob()
                threading.Thread(
                    target=self._create_executor, args=(number, job), name=f"job {number}", daemon=True
                ).start()
            case JobCommand(number, job_command):
                self._perform(number, job_command)
            case End():
                self._ray.close()
                os._exit(0)  # there is nothing left to do that could be worth a hang

    def _create_executor(self, number: int, job: Job) -> None:
        """Make the job's executor, in a thread of its own: it may have to ask the job's function for its resources."""
        try:
            executor = self._ray.executor(job)
        except Exception as error:  # noqa: BLE001  # whatever it is, the coordinator raises it
            self._event_loop.call_soon(partial(self._jobs.__delitem__, number))
            self._send(JobMessage(number, StartupRefused.by(error)))
        else:
            self._event_loop.call_soon(partial(self._on_executor_ready, number, executor))

    def _on_executor_ready(self, number: int, executor: Executor) -> None:
        hosted = self._jobs[number]
        hosted.executor = executor
        for command in hosted.deferred:
            self._perform(number, command)
        self._has_new_job.set()

    def _perform(self, number: int, command: Command) -> None:
        hosted = self._jobs.get(number)
        if hosted is None:  # it could not be taken up
            return
        if hosted.executor is None:
            hosted.deferred.append(command)
            return
        command.perform(hosted.executor)
        if isinstance(command, (Close, Leave)):
            del self._jobs[number]

    # --- what Ray has -------------------------------------------------------------------------------

    def _watch_cluster(self) -> NoReturn:
        while True:
            self._has_new_job.wait(CLUSTER_POLL_S)
            self._has_new_job.clear()
            with suppress(Exception):  # Ray's head is away: no answer, and the pulse says for how long
                self._publish_capacity()

    def _publish_capacity(self) -> None:
        executors = {number: hosted.executor for number, hosted in [*self._jobs.items()] if hosted.executor is not None}
        for number, executor in executors.items():
            self._send(JobMessage(number, _cluster_of(executor)))
        self._answered_s = self._clock.now()

    def _send(self, message: Message) -> None:
        """Waits while nobody reads: then nothing more is taken from the workers, whose outboxes are bounded."""
        try:
            with self._send_lock:
                self._connection.send(message)
        except OSError:
            _kill_process_group()


def _cluster_of(executor: Executor) -> Cluster:
    capacity = executor.capacity()
    try:
        return Cluster(capacity, executor.slots())
    except UnsatisfiableRequest as error:
        return Cluster(capacity, 0, str(error))


def _kill_process_group() -> NoReturn:
    """End at once, and with us what we started: some of Ray's processes take minutes to notice that theirs is gone."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def connection_from_arguments() -> Connection:
    """Our end of the socket, by the number on the command line."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # else Ray's processes would hold it open
    return Connection(descriptor)


def main() -> None:
    """Run the driver of a real Ray."""
    from tunesvc.execution.ray.ray_session import RaySession  # brings Ray

    Driver(connection_from_arguments(), RaySession).run()


if __name__ == "__main__":
    main()
