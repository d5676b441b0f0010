"""Sees to it that there is a Ray driver: reads what it says, notices when it is gone or hangs, starts the next one.

Imports no Ray.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tunesvc.execution.driver.driver_messages import (
    Begin,
    DriverHeartbeat,
    Join,
    Message,
    StartupCommand,
    StartupRefused,
)
from tunesvc.execution.driver.driver_process import DriverProcess
from tunesvc.util.clock import Clock
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""From the end of a driver to the start of the next; the last one for ever."""
STEADY_S = 60.0
"""A driver that was up for so long makes the back-off begin anew."""
_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class DriverTimeouts:
    """How long a driver is waited for."""

    start_s: float = 180.0
    """Until Ray is up."""
    silent_s: float = 60.0
    """For a sign of life of the driver's loop."""
    unanswered_s: float = 120.0
    """For an answer of Ray's head to the driver. Ray itself gives up after 60 s unless it is told otherwise."""
    close_s: float = 15.0
    """Until a driver that was told to end has ended."""


@dataclass(frozen=True, slots=True)
class DriverEnded:
    """A driver is gone, with all that it started here."""

    reason: str
    """What it did, as in `ended by SIGKILL`."""


MessageHandler = Callable[[DriverProcess | None, Message | DriverEnded], None]
"""Takes the messages of a driver process in order, `DriverEnded` last; without a process it could not be started."""


class DriverSupervisor:
    """Runs one driver after the other in a thread of its own until it is told to end."""

    def __init__(
        self, module: str, join: Join, on_message: MessageHandler, timeouts: DriverTimeouts, clock: Clock
    ) -> None:
        """Start the first driver, `main` of `module`; `hear` gets whatever it and the next ones say, in our thread."""
        self._module = module
        self._startup_commands: list[StartupCommand] = [join]
        self._receive = on_message
        self._timeouts = timeouts
        self._clock = clock
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._driver: DriverProcess | None = None
        self._failures = 0
        self._has_tried = threading.Event()
        """Whether the first driver's process has begun, or cannot."""
        self._thread = threading.Thread(target=self._run, name="driver-keeper", daemon=True)
        self._thread.start()
        self._has_tried.wait()  # a few ms; else what the caller imports next may hold the first driver up

    def add_job(self, begin: Begin) -> None:
        """Tell a job to the driver of now, and to each later one."""
        with self._starting:
            self._startup_commands.append(begin)
            if self._driver is not None:
                self._driver.send(begin)

    def remove_job(self, begin: Begin) -> None:
        """Tell a job to no later driver."""
        with self._starting:
            self._startup_commands.remove(begin)

    def end(self, closing: DriverProcess | None) -> None:
        """Start no other driver, wait for the one that was `told` to end, and kill whatever is left. Repeatable."""
        with self._starting:
            self._stopped.set()
            driver = self._driver
        try:
            if closing is not None and closing is driver:
                self._thread.join(self._timeouts.close_s)
        finally:
            if driver is not None:
                driver.kill()
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            started_s = self._clock.now()
            try:
                driver = self._start()
            except OSError as error:  # no memory, too many processes
                self._has_tried.set()
                _logger.warning("driver process cannot be started: %s", error)
                self._receive(None, DriverEnded(f"cannot be started: {error}"))
            else:
                self._has_tried.set()
                _logger.info("driver process %d started", driver.pid)
                reason = self._run_until_exit(driver)
                level = logging.INFO if self._stopped.is_set() else logging.WARNING
                _logger.log(level, "driver process %d %s", driver.pid, reason or "ended by itself")
                self._receive(driver, DriverEnded(reason))
            if self._clock.now() - started_s >= STEADY_S:
                self._failures = 0
            self._stopped.wait(BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)])
            self._failures += 1

    def _start(self) -> DriverProcess:
        with self._starting:
            self._driver = DriverProcess(
                self._module, tuple(self._startup_commands), recv_max_s=self._timeouts.silent_s
            )
            if self._stopped.is_set():
                self._driver.kill()
            return self._driver

    def _run_until_exit(self, driver: DriverProcess) -> str:
        """Follow a driver to its end; why it ended."""
        reason = self._follow(driver)
        driver.kill()
        end = driver.reap()
        return reason or end

    def _follow(self, driver: DriverProcess) -> str:
        """Pass on what a driver says until it ends; why it has to be ended, or nothing when it ended by itself."""
        received_s, waits_s, is_up = self._clock.now(), self._timeouts.start_s, False
        while True:
            try:
                message = driver.receive(_CHECK_S)
            except EOFError:
                return ""
            now = self._clock.now()
            if message is not None:
                received_s, is_up, waits_s = now, True, self._timeouts.silent_s
                self._receive(driver, message)
            if isinstance(message, StartupRefused):
                return message.text
            if isinstance(message, DriverHeartbeat) and message.unanswered_s > self._timeouts.unanswered_s:
                return f"got no answer from Ray's head for {message.unanswered_s:.0f} s"
            if now - received_s > waits_s:
                return f"gave no sign of life for {waits_s:g} s" if is_up else f"was not ready after {waits_s:g} s"
