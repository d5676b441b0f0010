"""Starts the Ray driver's process, talks to it, keeps its last output and ends it.

POSIX only. Imports no Ray.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from textwrap import shorten

from tunesvc.execution.driver.driver_messages import DriverCommand, Message, StartupCommand

_MAIN = "import sys; sys.path[:] = {path!r}; from {module} import main; main()"
_OUTPUT_TAIL_CHARS = 8_000
_SHOWN_CHARS = 120
_NOISE = re.compile(r"^\s*$|\[0x[0-9a-f]+\]\s*$")
"""Empty lines and stack frames of compiled code."""
_LOG_PREFIX = re.compile(r"^\[[^]]*\] \S+:\d+: ")
"""Prefix of Ray's messages: `[2026-01-31 12:00:00,000 E 4711 4711] rpc_client.h:204: `."""


class DriverProcess:
    """A driver process. Only one thread may receive. Any thread may send, and `kill`."""

    def __init__(
        self,
        module: str,
        startup_commands: Sequence[StartupCommand],
        *,
        recv_max_s: float,
    ) -> None:
        """Start the process in a session of its own, which signals to ours do not reach.

        Args:
            module: its `main` runs in the process.
            startup_commands: the first messages.
            recv_max_s: time limit for the rest of a message that has begun to arrive.
        """
        ours, theirs = socket.socketpair()
        ours.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_RCVTIMEO,
            struct.pack("ll", int(recv_max_s), 0),
        )
        self._output, output_end = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._process = _start_process(module, theirs.fileno(), output_end)
        finally:
            os.close(output_end)
            theirs.close()
        self._connection = Connection(ours.detach())
        self._sources: list[Connection | int] = [self._connection, self._output]
        self._output_tail = ""
        self._reaping = threading.Lock()
        self._outgoing: queue.SimpleQueue[DriverCommand | None] = queue.SimpleQueue()
        for command in startup_commands:
            self._outgoing.put(command)
        self._sender = threading.Thread(
            target=self._send_all,
            name="driver-commands",
            daemon=True,
        )
        self._sender.start()

    @property
    def pid(self) -> int:
        """The process ID, which is also the number of its process group."""
        return self._process.pid

    def send(self, command: DriverCommand) -> None:
        """Send a command. Returns at once. Without effect if the driver has ended."""
        self._outgoing.put(command)

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None if none arrives in time.

        Raises:
            EOFError: the process has ended, or did not complete a message.
        """
        ready = wait(self._sources, timeout_s)
        if self._output in ready and not self._read_output():
            self._sources.remove(self._output)
        if self._connection not in ready:
            return None
        try:
            message: Message = self._connection.recv()
        except OSError as error:
            raise EOFError(str(error)) from error
        return message

    def kill(self) -> None:
        """Kill the process and its children. Repeatable."""
        with self._reaping:
            if self._process.returncode is None:  # not reaped: its group's number is not reused
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Wait for the process, which is ending, and kill its children. Return why it ended."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        with self._reaping:
            code = self._process.wait()
        self._read_output()
        self._outgoing.put(None)
        self._sender.join()
        self._connection.close()
        os.close(self._output)
        return _describe_exit(code, self._output_tail)

    def _send_all(self) -> None:
        """Send commands. Those that are queued together travel together."""
        with suppress(OSError):  # the process is gone: `receive` raises
            while (command := self._outgoing.get()) is not None:
                commands = [command]
                while not self._outgoing.empty() and (command := self._outgoing.get()) is not None:
                    commands.append(command)
                self._connection.send(commands)
                if command is None:
                    return

    def _read_output(self) -> bool:
        """Read stdout and stderr. Return True if more may come."""
        with suppress(BlockingIOError):
            while data := os.read(self._output, 65_536):
                output = self._output_tail + data.decode("utf-8", "replace")
                self._output_tail = output[-_OUTPUT_TAIL_CHARS:]
            return False
        return True


def _start_process(
    module: str,
    connection: int,
    output: int,
) -> subprocess.Popen[bytes]:
    code = _MAIN.format(path=sys.path, module=module)
    return subprocess.Popen(
        # -P and our own path: a module in the current folder must not shadow one of ours
        [sys.executable, "-P", "-c", code, str(connection)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=[connection],
        start_new_session=True,
    )


def _describe_exit(code: int, output: str) -> str:
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"ended by {signal.Signals(-code).name}"
    lines = [line for line in output.splitlines() if not _NOISE.search(line)]
    if not lines:
        return how
    last = _LOG_PREFIX.sub("", lines[-1]).strip()
    return f"{how}: {shorten(last, _SHOWN_CHARS, placeholder=' ...')}"
