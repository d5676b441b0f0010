"""Makes a worker look to the objective like the Python process that started the study.

Owns `sys.argv`, `sys.path`, the module `__main__` and the policy of asyncio, which are Ray's before. Imports no Ray.
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
    """Let this process look like the one that started the job.

    Args:
        job: whose objective is to run here.
        folder: the study's, as it is called here.
        is_copy: it was copied from another machine, on which absolute paths mean something else.
    """
    script = _script_of(job, folder)
    sys.argv[:] = [str(folder / script) if script else ""]
    entries = [entry for entry in job.interpreter.import_path if not (is_copy and Path(entry).is_absolute())]
    path = [*(str(folder / entry) for entry in entries), *sys.path]
    # a script finds what lies beside it first, as it did where it was started; an entrypoint, what lies in its folder
    ordered = [*path, str(folder)] if job.function is not None else [str(folder), *path]
    sys.path[:] = dict.fromkeys(ordered)
    # what a spawned child sends back calls it by its other name
    sys.modules["__main__"] = sys.modules["__mp_main__"] = ModuleType("__main__")
    asyncio_loop.make_on_demand()


def fill_main(names: Mapping[str, Any]) -> None:
    """Give `__main__` the names of the user's script: what is pickled by its name there is found."""
    vars(sys.modules["__main__"]).update(names)


def _script_of(job: Job, folder: Path) -> str:
    """Return the file that the objective comes from, as far as it is known."""
    if job.entrypoint is None:
        return job.interpreter.script
    files = entrypoint_files(job.entrypoint, folder)
    return str(next((file for file in files if file.is_file()), job.entrypoint))
