"""Executes what the gang's other processes ask of an attempt, in the process that runs it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tunesvc.artifacts.checkpoint_archive import unpack
from tunesvc.execution.gang.gang_archive import pack_whole
from tunesvc.execution.gang.gang_log import GangLog
from tunesvc.trial import Channel


class GangAttempt(Channel, Protocol):
    """An attempt, as far as its gang may use it."""

    @property
    def gang_log(self) -> GangLog:
        """The output of its gang's processes."""
        ...

    @property
    def restored(self) -> Path | None:
        """The checkpoint that it has started from, on this machine."""
        ...


def execute(attempt: GangAttempt, verb: str, values: Sequence[Any]) -> Any:
    """Execute one call and return its result.

    Raises:
        ValueError: there is no such call.
        BadReport: the checkpoint is too large to travel.
    """
    match verb, *values:
        case "report", step, metrics:
            return attempt.report(step, metrics)
        case "checkpoint", Path() as path, step:
            return attempt.checkpoint(path, step)
        case "checkpoint", chunks, step:
            return _checkpoint(attempt, chunks, step)
        case "set_user_attr", name, value:
            return attempt.set_user_attr(name, value)
        case "output", process, stream, text, end:
            return attempt.gang_log.add(process, stream, text, end)
        case ("stop_requested",):
            return attempt.stop_requested
        case ("restored",) if attempt.restored is not None:
            return pack_whole(attempt.restored)
    raise ValueError(f"a gang's process has called {verb!r}")


def _checkpoint(attempt: GangAttempt, chunks: Sequence[bytes], step: int | None) -> bool | None:
    """Store a checkpoint that came from another node as an archive."""
    folder = Path(tempfile.mkdtemp(dir=attempt.directory))
    try:
        return attempt.checkpoint(unpack(chunks, folder / "checkpoint"), step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
