"""A trial in a child process: `tunesvc.current_trial()` in a program that `command:` starts.

The counterpart of the environment variables and JSON lines of `execution.objectives.command`, and
of the pipe of `execution.attempt.child_processes`. Imports neither the database, Ray nor Optuna.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunesvc.errors import BadReport
from tunesvc.trial import RUNNING, AssignedResources, RestoredState, Trial

HANDED_OVER = "handed-over"
"""Folder of copies to be stored, below TUNE_CHECKPOINT_DIR."""


@dataclass(frozen=True, slots=True)
class PipeChannel:
    """Writes each report as a line to the pipe that the study reads."""

    reports: Path
    """The pipe."""
    checkpoints: Path
    """The folder for copies."""
    directory: Path
    """The folder that the study made for scratch files."""

    @property
    def stop_mark(self) -> Path:
        """The file that exists once the trial has been asked to stop."""
        return self.reports.with_name("stop")

    @property
    def seen_mark(self) -> Path:
        """The file that exists once a process has seen the `stop_mark`."""
        return self.reports.with_name("stop-seen")

    @property
    def stop_requested(self) -> bool:
        """True if the trial has been asked to stop; leaves the `seen_mark` then.

        A program of `command:` gets SIGTERM instead.
        """
        if not self.stop_mark.exists():
            return False
        # After the attempt's end the folder is gone.
        with suppress(OSError):
            self.seen_mark.touch()
        return True

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a report."""
        self._write({**metrics, "step": step})

    def checkpoint(self, path: Path, step: int | None) -> None:
        """Copy a file or folder for the study; the original may be deleted at once."""
        copies = self.checkpoints / HANDED_OVER
        copies.mkdir(exist_ok=True)
        source = path.resolve()
        handed_over = Path(tempfile.mkdtemp(dir=copies), source.name)
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, handed_over)
        self._write({"checkpoint": str(handed_over), "step": None if step == -1 else step})

    def set_user_attr(self, name: str, value: str) -> None:
        """Write an attribute."""
        self._write({"user_attrs": {name: json.loads(value)}})

    def _write(self, fields: Mapping[str, object]) -> None:
        try:
            # Without O_NONBLOCK this would wait for a reader.
            descriptor = os.open(self.reports, os.O_WRONLY | os.O_NONBLOCK)
            with os.fdopen(descriptor, "wb") as pipe:
                os.set_blocking(descriptor, True)
                # The system keeps only short lines of several writers apart.
                fcntl.flock(pipe, fcntl.LOCK_EX)
                pipe.write(json.dumps(fields).encode() + b"\n")
                pipe.flush()
        except OSError as error:
            raise BadReport(
                f"a report cannot be written to {self.reports} ({error.strerror}): the trial's "
                "attempt has ended, or this process runs on another machine than its worker"
            ) from None


_of_process: Trial | None = None


def set_current_trial(trial: Trial) -> None:
    """Make a trial that of all threads of this process, a worker of its gang."""
    global _of_process  # a process has one
    _of_process = trial


def current_trial() -> Trial:
    """Return the trial that this program was started for, or that this thread runs.

    Outside of a study, a detached one.
    """
    if (running := RUNNING.get()) is not None:
        return running
    if _of_process is not None:
        return _of_process
    reports = os.environ.get("TUNE_REPORTS")
    if reports is None:
        return Trial()
    restored = None
    if path := os.environ.get("TUNE_RESTORED"):
        restored = RestoredState(Path(path), int(os.environ["TUNE_LAST_STEP"]))
    fold = os.environ.get("TUNE_FOLD")
    checkpoints, directory = os.environ["TUNE_CHECKPOINT_DIR"], os.environ["TUNE_DIRECTORY"]
    return Trial(
        PipeChannel(Path(reports), Path(checkpoints), Path(directory)),
        number=int(os.environ["TUNE_TRIAL"]),
        params=json.loads(os.environ["TUNE_PARAMS"]),
        seed=int(os.environ["TUNE_SEED"]),
        attempt=int(os.environ["TUNE_ATTEMPT"]),
        restored=restored,
        metrics=tuple(json.loads(os.environ["TUNE_METRICS"])),
        resources=AssignedResources(fold=None if fold is None else int(fold)),
    )
