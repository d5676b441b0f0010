"""Keeps a Ray driver running: starts the next one when it ends or hangs.

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
"""Delays before the next driver starts. The last one repeats."""
STEADY_S = 60.0
"""A driver that was up for this long resets the back-off."""
_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class DriverTimeouts:
    """Timeouts for a driver, in seconds."""

    start_s: float = 180.0
    """Limit of Ray's start."""
    silent_s: float = 60.0
    """Limit of the time between heartbeats of the driver's event loop."""
    unanswered_s: float = 120.0
    """Limit of an answer of Ray's head to the driver. By default Ray itself gives up after 60 s."""
    close_s: float = 15.0
    """Limit of the driver's end after `End`."""


@dataclass(frozen=True, slots=True)
class DriverEnded:
    """A driver has ended, with all its children."""

    reason: str
    """The reason as a predicate, as in `ended by SIGKILL`."""


MessageHandler = Callable[[DriverProcess | None, Message | DriverEnded], None]
"""Receives a driver's messages in order, `DriverEnded` last.

The driver is None if it could not be started.
"""


class DriverSupervisor:
    """Runs one driver after another in a thread of its own, until `end`."""

    def __init__(
        self,
        module: str,
        join: Join,
        on_message: MessageHandler,
        timeouts: DriverTimeouts,
        clock: Clock,
    ) -> None:
        """Start the first driver.

        Args:
            module: its `main` runs in the driver's process.
            join: the first command for each driver.
            on_message: receives all messages, in the supervisor's thread.
            timeouts: timeouts for the driver.
            clock: measures the timeouts.
        """
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
        """Set when the first driver's process has started or failed to."""
        self._thread = threading.Thread(
            target=self._run,
            name="driver-keeper",
            daemon=True,
        )
        self._thread.start()
        # A few ms. Otherwise the caller's next imports may delay the first driver.
        self._has_tried.wait()

    def add_job(self, begin: Begin) -> None:
        """Send a job to the current driver and to all later ones."""
        with self._starting:
            self._startup_commands.append(begin)
            if self._driver is not None:
                self._driver.send(begin)

    def remove_job(self, begin: Begin) -> None:
        """Do not send a job to later drivers."""
        with self._starting:
            self._startup_commands.remove(begin)

    def end(self, closing: DriverProcess | None) -> None:
        """Start no other driver, wait for the one that is closing, and kill what is left.

        Repeatable.
        """
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
                _logger.log(
                    level,
                    "driver process %d %s",
                    driver.pid,
                    reason or "ended by itself",
                )
                self._receive(driver, DriverEnded(reason))
            if self._clock.now() - started_s >= STEADY_S:
                self._failures = 0
            self._stopped.wait(BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)])
            self._failures += 1

    def _start(self) -> DriverProcess:
        with self._starting:
            self._driver = DriverProcess(
                self._module,
                tuple(self._startup_commands),
                recv_max_s=self._timeouts.silent_s,
            )
            if self._stopped.is_set():
                self._driver.kill()
            return self._driver

    def _run_until_exit(self, driver: DriverProcess) -> str:
        """Run a driver until it ends or must be killed. Return the reason."""
        reason = self._follow(driver)
        driver.kill()
        end = driver.reap()
        return reason or end

    def _follow(self, driver: DriverProcess) -> str:
        """Pass on a driver's messages.

        Return why it must be killed, or an empty text if it has ended.
        """
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
            if isinstance(message, DriverHeartbeat):
                unanswered_s = message.unanswered_s
                if unanswered_s > self._timeouts.unanswered_s:
                    return f"got no answer from Ray's head for {unanswered_s:.0f} s"
            if now - received_s > waits_s:
                if not is_up:
                    return f"was not ready after {waits_s:g} s"
                return f"gave no sign of life for {waits_s:g} s"
