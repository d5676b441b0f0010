"""Makes a worker look like the Python process that started the study.

Owns `sys.argv`, `sys.path`, the module `__main__` and asyncio's policy, which Ray has set before.
Imports no Ray.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesvc.execution.attempt import asyncio_loop
from tunesvc.execution.executor import Job
from tunesvc.execution.objectives.source_digest import entrypoint_files


def imitate_interpreter(job: Job, folder: Path, *, is_copy: bool) -> None:
    """Make this process look like the one that started the job.

    Args:
        job: the job to run here.
        folder: the study's folder on this node.
        is_copy: True if the folder is a copy from another machine, whose absolute paths are not
            valid here.
    """
    script = _script_of(job, folder)
    sys.argv[:] = [str(folder / script) if script else ""]
    entries = job.interpreter.import_path
    if is_copy:
        entries = tuple(entry for entry in entries if not Path(entry).is_absolute())
    path = [*(str(folder / entry) for entry in entries), *sys.path]
    # A script imports from its own folder first, an entrypoint from the study's folder.
    ordered = [*path, str(folder)] if job.function is not None else [str(folder), *path]
    sys.path[:] = dict.fromkeys(ordered)
    # spawned children pickle its classes under the name `__mp_main__`
    sys.modules["__main__"] = sys.modules["__mp_main__"] = ModuleType("__main__")
    asyncio_loop.make_on_demand()


def fill_main(names: Mapping[str, Any]) -> None:
    """Add the names of the user's script to `__main__`, where pickle looks for them."""
    vars(sys.modules["__main__"]).update(names)


def _script_of(job: Job, folder: Path) -> str:
    """Return the objective's file, if it is known."""
    if job.entrypoint is None:
        return job.interpreter.script
    files = entrypoint_files(job.entrypoint, folder)
    return str(next((file for file in files if file.is_file()), job.entrypoint))
