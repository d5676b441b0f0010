"""A program in a process group that ends with the worker at the latest, see `supervise`.

Imports no Ray.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tunesvc.execution.supervision import supervise

FATAL_SIGNALS = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
"""Signals at which `faulthandler` prints the stack, by its names."""


@contextmanager
def supervised(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    descriptors: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, and kill its whole process group at the end of the block.

    Args:
        arguments: the program and its arguments.
        environment: its environment variables.
        folder: removed if the worker dies.
        descriptors: open descriptors that the program inherits.
    """
    watched_end, held_end = os.pipe()
    watched = [str(watched_end), str(folder)]
    supervisor = [sys.executable, "-I", "-S", supervise.__file__, *watched, *arguments]
    process = subprocess.Popen(
        supervisor,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[watched_end, *descriptors],
    )
    os.close(watched_end)
    try:
        yield process
    finally:
        # Kill the whole group: nothing that the program started may outlive the attempt.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):  # it died before it forked its watcher
            os.write(held_end, supervise.RELEASE)
        os.close(held_end)
        process.wait()


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code, 128 and the number of a signal, or None while the process runs.

    Does not reap the process, so that its group keeps its number.
    """
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def signal_name(code: int) -> str:
    """Return the name of the signal that an exit code stands for, or an empty text."""
    return {128 + int(number): number.name for number in signal.Signals}.get(code, "")


@contextmanager
def exit_watch(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Yield a descriptor that is readable when the process has ended.

    Yields none on systems without pidfds.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield []
        return
    try:
        yield [descriptor]
    finally:
        os.close(descriptor)
