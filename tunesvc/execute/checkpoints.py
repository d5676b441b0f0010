"""Checkpoints of one trial on the file system that coordinator and workers share.

Each lies complete in a folder of its own, `<root>/<trial>/attempt-2-step-9-1/<name as it was saved>`, so the one before
stays usable until the newer one is recorded. Imports no Ray.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_NAME = re.compile(r"^attempt-(\d+)-(?:step-(\d+)|start)-(\d+)$")
"""A checkpoint from before the first report is called `start` instead of by a step."""


@dataclass(frozen=True, slots=True, order=True)
class CheckpointFile:
    """A complete checkpoint; they sort by age, the oldest first."""

    attempt: int
    number: int
    """Counts the attempt's checkpoints from 1."""
    step: int
    """Of the last report before it, -1 before the first one."""
    path: Path
    """The file or folder under the name that it was saved by."""


class Checkpoints:
    """Where an attempt keeps its trial's state."""

    def __init__(self, root: Path, trial_number: int, attempt_number: int, restored: Path | None) -> None:
        self._folder = root / str(trial_number)
        self._attempt = attempt_number
        self._numbers = count(1)
        self._held = [restored] if restored else []

    def save(self, path: Path, step: int) -> Path:
        """Copy a file or folder; returns where the copy lies.

        A crash in between leaves a folder that ends in `.partial` and the checkpoint before untouched.
        """
        after = f"step-{step}" if step >= 0 else "start"
        name = f"attempt-{self._attempt}-{after}-{next(self._numbers)}"
        partial, complete = self._folder / f"{name}.partial", self._folder / name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        source = path.resolve()
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, partial / source.name)
        partial.rename(complete)
        self._held.append(complete / source.name)
        return self._held[-1]

    def forget_before(self, recorded: Path) -> None:
        """Delete what is older than a checkpoint that is recorded now."""
        if recorded not in self._held:
            return
        position = self._held.index(recorded)
        for old in self._held[:position]:
            if old.parent.parent == self._folder:
                shutil.rmtree(old.parent, ignore_errors=True)
        del self._held[:position]


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the complete checkpoints in a trial's folder, the oldest first."""
    found = [_described(path) for path in folder.glob("attempt-*/*")]
    return sorted(file for file in found if file is not None)


def step_of(checkpoint: Path | None) -> int:
    """The step after which a checkpoint was saved, -1 for none."""
    file = _described(checkpoint) if checkpoint else None
    return -1 if file is None else file.step


def _described(path: Path) -> CheckpointFile | None:
    match = _NAME.match(path.parent.name)
    if match is None:
        return None
    attempt, step, number = match.groups()
    return CheckpointFile(int(attempt), int(number), -1 if step is None else int(step), path)
