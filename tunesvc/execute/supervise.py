"""Runs one program and outlives neither it nor its worker: `python supervise.py PROGRAM ARGUMENT...`.

Leads the program's process group. When the worker dies, even by SIGKILL, the kernel says so (PR_SET_PDEATHSIG) and the
whole group is killed, grandchildren included. Ends with the program's exit code, 128 + n for signal n, as shells do.
A script of its own that imports only the standard library, so that it starts in milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Start the program in `argv`, wait for it, return its exit code."""
    parent = int(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # meant for the program, which shares our group
    signal.signal(signal.SIGUSR1, _kill_group)
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere a killed worker leaves its program
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        return 1
    try:
        program = subprocess.Popen(sys.argv[2:], restore_signals=True, preexec_fn=_default_signals)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[2]}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    code = program.wait()
    return code if code >= 0 else 128 - code


def _default_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's processes block SIGINT


def _kill_group(_signum: int, _frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
