"""Becomes a program that cannot outlive its worker: `python supervise.py FD PROGRAM ARGUMENT...`.

FD is the reading end of a pipe that the worker holds open. A watcher is split off that kills the program's whole
process group, grandchildren included, when the pipe ends without a word: the worker is dead, by SIGKILL perhaps. The
watcher is nobody's child, for Ray kills a dying worker's children, and the program may wait for its own.
A script that imports only the standard library, so that it starts in milliseconds. POSIX only.
"""

import contextlib
import os
import signal
import sys

NOT_EXECUTABLE = 126
NOT_FOUND = 127
RELEASE = b"."
"""What the worker writes when the watcher is no longer needed."""


def main() -> int:
    """Split the watcher off and become the program in `argv`; returns only when that fails."""
    pipe, program = int(sys.argv[1]), sys.argv[2:]
    _split_off_watcher(pipe, os.getpid())
    os.close(pipe)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's processes block SIGINT
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, programs expect the default
    try:
        os.execvp(program[0], program)  # noqa: S606  # no shell is the point
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _split_off_watcher(pipe: int, group: int) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        _watch(pipe, group)
    os._exit(0)


def _watch(pipe: int, group: int) -> None:
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    if os.read(pipe, 1) != RELEASE:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
