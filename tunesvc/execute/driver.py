"""The process that is the Ray driver: `python -m tunesvc.execute.driver FD`, started by `link`.

FD is its end of a socket. It ends at once when the other end is closed: a local Ray ends with it, attempts on a
shared cluster run on. Three threads: the main one listens to attempts and carries out commands, one reads commands,
one asks Ray what it has, because nobody knows how long that takes while Ray's head is away. Only `main` imports Ray.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import NoReturn, Protocol

from tunesvc.clock import SystemClock
from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.cluster import LocalResources
from tunesvc.execute.executor import Executor, Job
from tunesvc.execute.messages import Begin, Close, Cluster, Command, Heard, Join, Leave, Message, Pulse, Refused

PULSE_S = 1.0
"""How often it gives a sign of life."""
CLUSTER_S = 2.0
"""How often it asks what Ray has."""


class Interruptible(Executor, Protocol):
    """An executor whose listening thread can be given something to do."""

    def soon(self, action: Callable[[], None]) -> None:
        """See `RayExecutor.soon`."""
        ...


class Joiner(Protocol):
    """Joins a cluster or starts a local Ray; what it returns makes the executor of a job there."""

    def __call__(
        self, address: str | None, local: LocalResources | None, source: str | None
    ) -> Callable[[Job], Interruptible]: ...


class Driver:
    """Holds an executor and obeys the other end of the connection."""

    def __init__(self, connection: Connection, join: Joiner) -> None:
        self._connection = connection
        self._join = join
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._clock = SystemClock()
        self._executor: Interruptible
        self._answered_s = self._pulsed_s = self._clock.now()

    def run(self) -> None:
        """Connect to Ray, take up the job, then listen and obey until told to end, or until the other end is closed."""
        join: Join = self._connection.recv()
        threading.Thread(target=self._obey, name="commands", daemon=True).start()
        sys.argv[0] = join.program
        try:
            make_executor = self._join(join.address, join.local, join.source)
            self._executor = make_executor(self._await_job())
        except Exception as error:  # noqa: BLE001  # whatever it is, the coordinator raises it
            self._send(Refused.by(error))
            return
        self._look_around()
        threading.Thread(target=self._keep_looking, name="cluster", daemon=True).start()
        while True:
            self._listen()

    def _await_job(self) -> Job:
        while True:
            with suppress(queue.Empty):
                return self._jobs.get(timeout=PULSE_S)
            self._send(Pulse((), "", 0.0))

    def _listen(self) -> None:
        events = self._executor.events(PULSE_S)
        if events:
            self._send(Heard(events))
        now = self._clock.now()
        if now - self._pulsed_s >= PULSE_S:
            self._pulsed_s = now
            self._send(Pulse(self._executor.alive(), self._executor.trouble(), now - self._answered_s))

    def _obey(self) -> NoReturn:
        """Hand commands to the main thread, which alone may use the executor."""
        while True:
            try:
                command: Begin | Command = self._connection.recv()
            except (EOFError, OSError):  # whom we work for is gone
                _perish()
            if isinstance(command, Begin):
                self._jobs.put(command.job)
            else:
                self._executor.soon(partial(self._carry_out, command))

    def _carry_out(self, command: Command) -> None:
        command.perform(self._executor)
        if isinstance(command, (Close, Leave)):
            os._exit(0)  # there is nothing left to do that could be worth a hang

    def _keep_looking(self) -> NoReturn:
        while True:
            time.sleep(CLUSTER_S)
            with suppress(Exception):  # Ray's head is away: no answer, and the pulse says for how long
                self._look_around()

    def _look_around(self) -> None:
        capacity = self._executor.capacity()
        try:
            cluster = Cluster(capacity, self._executor.slots())
        except UnsatisfiableRequest as error:
            cluster = Cluster(capacity, 0, str(error))
        self._answered_s = self._clock.now()
        self._send(cluster)

    def _send(self, message: Message) -> None:
        """Waits while nobody reads: then nothing more is taken from the workers, whose outboxes are bounded."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            _perish()


def _perish() -> NoReturn:
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
    from tunesvc.execute.ray_executor import join  # brings Ray

    Driver(connection_from_arguments(), join).run()


if __name__ == "__main__":
    main()
