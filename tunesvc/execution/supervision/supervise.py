"""Ends a program with its worker: `python supervise.py FD FOLDER [PROGRAM ARGUMENT...]`.

FD is the read end of a pipe that the worker holds open. The script forks a watcher and then becomes
the program, or ends if there is none. If the pipe closes without a message, the worker is dead,
perhaps by SIGKILL: the watcher then kills the program's process group, grandchildren included, and
removes the folder. The watcher is not a child of the worker, because Ray kills a dying worker's
children, nor of the program, which may wait for its own children.

Imports only the standard library, so that it starts in milliseconds. POSIX only.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

NOT_EXECUTABLE = 126
NOT_FOUND = 127
RELEASE = b"."
"""Written by the worker when the watcher is no longer needed."""
_REMOVAL_S = 30.0
"""Time limit for removing the folder, in case something still writes into it."""


def main() -> int:
    """Fork the watcher and become the program.

    Return only without a program, or if it cannot start.
    """
    pipe, folder, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    _split_off_watcher(pipe, folder, os.getpid() if program else None)
    os.close(pipe)
    if not program:
        return 0
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's processes block SIGINT
    signal.signal(
        signal.SIGPIPE,
        signal.SIG_DFL,
    )  # Python ignores it, programs expect the default
    try:
        os.execvp(program[0], program)  # noqa: S606  # no shell is the point
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _split_off_watcher(pipe: int, folder: str, group: int | None) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        _watch(pipe, folder, group)
    os._exit(0)


def _watch(pipe: int, folder: str, group: int | None) -> None:
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    # The program's other descriptors: held open here, a socket would seem to have a reader still.
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
    if os.read(pipe, 1) == RELEASE:
        return
    if group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    _remove(folder)


def _remove(folder: str) -> None:
    give_up_at_s = time.monotonic() + _REMOVAL_S
    shutil.rmtree(folder, ignore_errors=True)
    while os.path.lexists(folder) and time.monotonic() < give_up_at_s:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
