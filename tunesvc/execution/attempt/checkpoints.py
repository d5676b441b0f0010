"""Checkpoints of one trial on the file system that coordinator and workers share.

Each lies complete in a folder of its own, `<root>/<trial>/attempt-2-step-9-1/<name as it was saved>`, so the one before
stays usable until the newer one is recorded. `<root>/<trial>/values.json` has the values that were reported where those
that are kept were saved, by the name of the folder, for later attempts of the trial. Imports no Ray.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tunesvc.spec.model import Keep

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

    def __init__(
        self, root: Path, trial_number: int, attempt_number: int, keep: Keep | None = None, *, maximize: bool = False
    ) -> None:
        """`keep`: how many of which; `maximize`: the larger value is the better one."""
        self._folder = root / str(trial_number)
        self._attempt = attempt_number
        self._keep = keep or Keep()
        self._sign = -1 if maximize else 1
        self._numbers = count(1)
        self._values: dict[int, float] = {}
        """What this attempt reported, by step."""

    def note(self, step: int, value: float | None) -> None:
        """Remember what was reported at a step, by which checkpoints are compared."""
        if value is not None and not math.isnan(value):
            self._values.setdefault(step, value)

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
        return complete / source.name

    def forget_before(self, recorded: Path) -> None:
        """Delete what need not be kept of a checkpoint that is recorded now, and of older ones."""
        newest = _described(recorded)
        if newest is None or recorded.parent.parent != self._folder:
            return
        known = [file for file in checkpoint_files(self._folder) if file <= newest]
        values = self._valued(known)
        kept = {*known[-self._keep.last :], *self._best(values)}
        for file in known:
            if file not in kept:
                shutil.rmtree(file.path.parent, ignore_errors=True)
        self._write_values({file.path.parent.name: value for file, value in values.items() if file in kept})

    def _valued(self, files: Sequence[CheckpointFile]) -> dict[CheckpointFile, float]:
        """Return the values that checkpoints were saved at; those of unknown value are left out."""
        values = self._read_values()
        for file in files:
            if file.attempt == self._attempt and file.step in self._values:
                values[file.path.parent.name] = self._values[file.step]
        return {file: values[file.path.parent.name] for file in files if file.path.parent.name in values}

    def _best(self, values: Mapping[CheckpointFile, float]) -> list[CheckpointFile]:
        """Return the best checkpoints, of equal ones the newest."""
        newest_first = sorted(values, reverse=True)
        return sorted(newest_first, key=lambda file: self._sign * values[file])[: self._keep.best]

    def _read_values(self) -> dict[str, float]:
        try:
            return {str(name): float(value) for name, value in json.loads(self._values_path.read_text()).items()}
        except (OSError, ValueError):
            return {}

    def _write_values(self, values: Mapping[str, float]) -> None:
        partial = self._folder / f"values-{self._attempt}.partial"
        with suppress(OSError):  # a full disk may cost the best checkpoint, but not the trial
            partial.write_text(json.dumps(values))
            partial.replace(self._values_path)

    @property
    def _values_path(self) -> Path:
        return self._folder / "values.json"


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
