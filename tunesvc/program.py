"""`tunesvc.current_trial()`: a trial for Python programs that a study starts with `command:`.

The other end of the environment variables and JSON lines that `tunesvc.execute.command` sets up. Imports neither the
database, Ray nor Optuna.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tunesvc.objective import Trial

HANDED_OVER = "handed-over"
"""Folder of the copies that wait to be kept, below TUNE_CHECKPOINT_DIR."""


class PipeChannel:
    """Writes each report as a line to the pipe that the study reads."""

    stop_requested = False
    """A program is stopped by SIGTERM."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a report."""
        self._write({**metrics, "step": step})

    def checkpoint(self, path: Path, step: int | None) -> None:
        """Copy a file or folder to where the study takes it from, so that the original may go at once."""
        copies = Path(os.environ["TUNE_CHECKPOINT_DIR"], HANDED_OVER)
        copies.mkdir(exist_ok=True)
        source = path.resolve()
        handed_over = Path(tempfile.mkdtemp(dir=copies), source.name)
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, handed_over)
        self._write({"checkpoint": str(handed_over), "step": None if step == -1 else step})

    def set_user_attr(self, name: str, value: str) -> None:
        """Write an attribute."""
        self._write({"user_attrs": {name: json.loads(value)}})

    @property
    def directory(self) -> Path:
        """The folder that the study made for this program."""
        return Path(os.environ["TUNE_DIRECTORY"])

    def _write(self, fields: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as pipe:
            pipe.write(json.dumps(fields) + "\n")


def current_trial() -> Trial:
    """The trial that this program was started for; outside of a study one that reports to nobody."""
    reports = os.environ.get("TUNE_REPORTS")
    if reports is None:
        return Trial()
    restored = os.environ.get("TUNE_RESTORED")
    return Trial(
        PipeChannel(reports),
        number=int(os.environ["TUNE_TRIAL"]),
        params=json.loads(os.environ["TUNE_PARAMS"]),
        seed=int(os.environ["TUNE_SEED"]),
        attempt=int(os.environ["TUNE_ATTEMPT"]),
        restored=Path(restored) if restored else None,
        metrics=tuple(json.loads(os.environ["TUNE_METRICS"])),
        last_step=int(os.environ["TUNE_LAST_STEP"]),
    )
