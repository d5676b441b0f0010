"""The Ray driver's process, started by `driver_process` with a file descriptor FD.

FD is its end of a socket. The process ends at once when the other end is closed. A local Ray ends
with it, attempts on a shared cluster stay. Only the main thread uses executors: it receives events
and executes commands, of all jobs. One thread reads commands, one asks Ray for its resources, which
may block while Ray's head is unreachable, and one per job creates its executor. A local Ray whose
node is gone does not get it back: the process then kills itself, and is replaced. Only `main`
imports Ray.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import NoReturn, Protocol

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.driver.driver_messages import (
    Begin,
    Cluster,
    DriverCommand,
    DriverHeartbeat,
    End,
    EventBatch,
    ExecutorCall,
    HeartbeatBatch,
    JobMessage,
    Message,
    StartupRefused,
)
from tunesvc.execution.event_loop import EventLoop
from tunesvc.execution.executor import Executor, Job
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.util import logs
from tunesvc.util.clock import SystemClock

_log = logging.getLogger(__name__)
HEARTBEAT_S = 1.0
"""Interval of its heartbeats."""
CLUSTER_POLL_S = 2.0
"""Interval at which it asks Ray for its resources."""


class JoinedRay(Protocol):
    """A Ray, started or joined."""

    def executor(self, job: Job) -> Executor:
        """Return an executor for a job, which uses the driver's event loop.

        Any thread may call this.
        """
        ...

    def close(self) -> None:
        """Leave Ray, and end it if this process owns it."""
        ...


class RayConnector(Protocol):
    """Joins a cluster or starts a local Ray."""

    def __call__(
        self,
        address: str | None,
        local: LocalResources | None,
        event_loop: EventLoop,
    ) -> JoinedRay: ...


@dataclass(slots=True)
class HostedJob:
    """A job and its executor."""

    executor: Executor | None = None
    """None until it is created."""
    deferred: list[ExecutorCall] = field(default_factory=list)
    """Calls that arrived before the executor was created."""


class Driver:
    """Holds an executor for each job and executes the commands of the coordinator's process."""

    def __init__(self, connection: Connection, join: RayConnector) -> None:
        self._connection = connection
        self._connector = join
        self._ray: JoinedRay
        self._owns_ray = False
        self._event_loop = EventLoop()
        self._jobs: dict[int, HostedJob] = {}
        self._send_lock = threading.Lock()
        self._has_new_job = threading.Event()
        """Set when a job waits for the cluster's resources."""
        self._clock = SystemClock()
        self._answered_s = self._clock.now()
        self._heartbeat_s = -HEARTBEAT_S

    def run(self) -> None:
        """Connect to Ray, then send events and execute commands until the end.

        The end is the command `End`, or that the other end of the socket is closed.
        """
        join, *commands = self._connection.recv()
        self._owns_ray = join.address is None
        _start_thread("commands", self._receive_commands, commands)
        sys.argv[0] = join.program
        logs.forward(self._send)
        try:
            self._ray = self._connector(
                join.address,
                join.local,
                self._event_loop,
            )
        except Exception as error:  # noqa: BLE001  # the coordinator raises it
            self._send(StartupRefused.by(error))
            return
        self._answered_s = self._clock.now()
        _start_thread("cluster", self._watch_cluster)
        while True:
            self._send_heartbeats()
            self._event_loop.run_once(HEARTBEAT_S)
            self._send_events()

    def _send_events(self) -> None:
        for number, executor in self._executors():
            if events := executor.events(0.0):
                self._send(JobMessage(number, EventBatch(events)))

    def _send_heartbeats(self) -> None:
        now = self._clock.now()
        if now - self._heartbeat_s < HEARTBEAT_S:
            return
        self._heartbeat_s = now
        self._send(DriverHeartbeat(now - self._answered_s))
        for number, executor in self._executors():
            heartbeats = HeartbeatBatch(executor.heartbeats(), executor.health_error())
            self._send(JobMessage(number, heartbeats))

    def _executors(self) -> list[tuple[int, Executor]]:
        """Return the executors by job number. A copy: jobs may come and go meanwhile."""
        jobs = [*self._jobs.items()]
        return [(number, hosted.executor) for number, hosted in jobs if hosted.executor is not None]

    # --- commands ---------------------------------------------------------------------------------

    def _receive_commands(self, commands: Sequence[DriverCommand]) -> NoReturn:
        """Pass commands on to the main thread, which alone may use executors."""
        while True:
            if commands:
                self._event_loop.call_soon(partial(self._handle_all, commands))
            try:
                commands = self._connection.recv()
            except (EOFError, OSError):  # the coordinator's process is gone
                _kill_process_group()

    def _handle_all(self, commands: Sequence[DriverCommand]) -> None:
        for command in commands:
            self._handle(command)

    def _handle(self, command: DriverCommand) -> None:
        match command:
            case Begin(number, job):
                self._jobs[number] = HostedJob()
                _start_thread(f"job {number}", self._create_executor, number, job)
            case ExecutorCall():
                self._perform(command)
            case End():
                self._ray.close()
                os._exit(0)  # nothing is left to do, and a normal exit may hang

    def _create_executor(self, number: int, job: Job) -> None:
        """Create a job's executor. Runs in a thread of its own.

        It may take long, if a worker has to import the job's function.
        """
        try:
            executor = self._ray.executor(job)
        except Exception as error:  # noqa: BLE001  # the coordinator raises it
            self._event_loop.call_soon(partial(self._jobs.__delitem__, number))
            self._send(JobMessage(number, StartupRefused.by(error)))
        else:
            self._event_loop.call_soon(partial(self._on_executor_ready, number, executor))

    def _on_executor_ready(self, number: int, executor: Executor) -> None:
        hosted = self._jobs[number]
        hosted.executor = executor
        for call in hosted.deferred:
            self._perform(call)
        self._has_new_job.set()

    def _perform(self, call: ExecutorCall) -> None:
        hosted = self._jobs.get(call.number)
        if hosted is None:  # its executor could not be created
            return
        if hosted.executor is None:
            hosted.deferred.append(call)
            return
        call.perform(hosted.executor)
        if call.is_last:
            del self._jobs[call.number]

    # --- the cluster's resources ------------------------------------------------------------------

    def _watch_cluster(self) -> NoReturn:
        while True:
            self._has_new_job.wait(CLUSTER_POLL_S)
            self._has_new_job.clear()
            with suppress(Exception):  # Ray's head is away: the heartbeats say for how long
                self._publish_capacity()

    def _publish_capacity(self) -> None:
        for number, executor in self._executors():
            cluster = _cluster_of(executor)
            if self._owns_ray and not cluster.capacity.nodes:
                _log.warning("its only node is gone")
                _kill_process_group()
            self._send(JobMessage(number, cluster))
        self._answered_s = self._clock.now()

    def _send(self, message: Message) -> None:
        """Send a message.

        Blocks while the other end does not read: events then wait in the bounded outboxes.
        """
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


def _start_thread(name: str, target: Callable[..., object], *args: object) -> None:
    threading.Thread(target=target, args=args, name=name, daemon=True).start()


def _kill_process_group() -> NoReturn:
    """Kill this process and all its children.

    Ray's processes may take minutes to end by themselves.
    """
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def connection_from_arguments() -> Connection:
    """Return this process's end of the socket, by the number on the command line."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # otherwise Ray's processes would hold it open
    return Connection(descriptor)


def main() -> None:
    """Run the driver of a real Ray."""
    from tunesvc.execution.ray.ray_session import RaySession  # imports Ray

    Driver(connection_from_arguments(), RaySession).run()


if __name__ == "__main__":
    main()
