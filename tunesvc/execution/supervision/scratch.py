"""Scratch folders of attempts on the worker's disk.

Each worker has one folder for them, which a watcher removes when the worker dies, see `supervise`.
Imports no Ray.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tunesvc.execution.supervision import supervise


def make(name: str) -> Path:
    """Make an empty folder with a unique name that begins with `name`."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_root()))


def remove(folder: Path) -> None:
    """Remove a folder. If it contains the working directory, change that first."""
    with suppress(OSError):  # the working directory is gone already
        if Path.cwd().is_relative_to(folder):
            os.chdir(_root())
    shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _root() -> Path:
    """Return this process's folder. The write end of the pipe stays open until the process ends."""
    root = Path(tempfile.mkdtemp(prefix="tunesvc-")).resolve()
    watched_end, _ = os.pipe()
    script = [sys.executable, "-I", "-S", supervise.__file__, str(watched_end), str(root)]
    subprocess.run(script, pass_fds=[watched_end], start_new_session=True, check=True)
    os.close(watched_end)
    return root
