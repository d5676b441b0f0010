"""Checkpoints of one trial on the file system that coordinator and workers share.

Each checkpoint has a folder of its own, `<root>/<trial>/attempt-2-step-9-1/<original name>`, so the
previous one stays usable until the newer one is recorded. `<root>/<trial>/values.json` maps the
folder names of kept checkpoints to the values reported at their steps, for later attempts of the
trial. Imports no Ray.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from tunesvc.spec.goals import Goal, orient
from tunesvc.spec.sections.execution_keys import Keep

OnKept = Callable[[str, int], None]
"""Called with the location and the step of a checkpoint that is safe."""

_NAME = re.compile(r"^attempt-(\d+)-(?:step-(\d+)|start)-(\d+)$")
"""A checkpoint from before the first report has `start` instead of a step."""


@dataclass(frozen=True, slots=True, order=True)
class CheckpointFile:
    """A complete checkpoint. Sorts by age, oldest first."""

    attempt: int
    number: int
    """1, 2, 3, ... within the attempt."""
    step: int
    """Step of the last report before it, -1 before the first report."""
    path: Path
    """The copied file or folder, under its original name."""


class CheckpointSaver(Protocol):
    """Saves an attempt's checkpoints somewhere, and deletes those that need not be kept."""

    def note(self, step: int, value: float | None) -> None:
        """Remember the value reported at a step. Checkpoints are compared by it."""
        ...

    def keep(self, path: Path, step: int, on_kept: OnKept) -> None:
        """Copy a file or folder, and call `on_kept` once the copy is safe, now or later."""
        ...

    def restore(self, location: str) -> Path | None:
        """Return a checkpoint as a file or folder on this machine; None if there is none."""
        ...

    def forget_before(self, recorded: str, kept: Collection[str] = ()) -> None:
        """Apply `keep` to a checkpoint that is now recorded and to all older ones.

        Args:
            recorded: location of that checkpoint.
            kept: locations of others that stay in any case.
        """
        ...

    def close(self) -> None:
        """Wait until all checkpoints are safe, or cannot be made so."""
        ...


class Checkpoints:
    """Saves an attempt's checkpoints and deletes those that need not be kept."""

    def __init__(
        self,
        root: Path,
        trial_number: int,
        attempt_number: int,
        keep: Keep | None = None,
        *,
        goal: Goal = "minimize",
    ) -> None:
        """Save checkpoints below `root`.

        Args:
            root: the folder of all trials' checkpoints.
            trial_number: the trial.
            attempt_number: the attempt, from 1.
            keep: number of latest and of best checkpoints to keep.
            goal: of the metric that the values are of.
        """
        self._folder = root / str(trial_number)
        self._attempt = attempt_number
        self._keep = keep or Keep()
        self._orientation = orient(goal)
        self._numbers = count(1)
        self._values: dict[int, float] = {}
        """Values reported by this attempt, by step."""

    def note(self, step: int, value: float | None) -> None:
        """Remember the value reported at a step. Checkpoints are compared by it."""
        if value is not None and not math.isnan(value):
            self._values.setdefault(step, value)

    def keep(self, path: Path, step: int, on_kept: OnKept) -> None:
        """Copy a file or folder, and call `on_kept` with the copy's path and the step."""
        on_kept(str(self.save(path, step)), step)

    def save(self, path: Path, step: int) -> Path:
        """Copy a file or folder and return the copy's path.

        A crash leaves a folder that ends in `.partial`. Earlier checkpoints stay untouched.
        """
        name = checkpoint_name(self._attempt, step, next(self._numbers))
        partial, complete = self._folder / f"{name}.partial", self._folder / name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        source = path.resolve()
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, partial / source.name)
        partial.rename(complete)
        return complete / source.name

    def restore(self, location: str) -> Path | None:
        """Return a checkpoint's path; None if there is none."""
        path = Path(location)
        return path if path.exists() else None

    def close(self) -> None:
        """Do nothing: each checkpoint is complete when it is saved."""

    def forget_before(self, recorded: str, kept: Collection[str] = ()) -> None:
        """Apply `keep` to a checkpoint that is now recorded and to all older ones."""
        newest = parse_checkpoint(Path(recorded))
        if newest is None or newest.path.parent.parent != self._folder:
            return
        known = [file for file in checkpoint_files(self._folder) if file <= newest]
        values = self._valued(known)
        stays = select_kept(known, values, self._keep, self._orientation)
        stays |= {file for file in known if str(file.path) in kept}
        for file in known:
            if file not in stays:
                shutil.rmtree(file.path.parent, ignore_errors=True)
        self._write_values(
            {file.path.parent.name: value for file, value in values.items() if file in stays},
        )

    def _valued(self, files: Sequence[CheckpointFile]) -> dict[CheckpointFile, float]:
        """Return the values at the checkpoints' steps.

        Checkpoints of unknown value are left out.
        """
        stored = self._read_values()
        values: dict[CheckpointFile, float] = {}
        for file in files:
            if file.attempt == self._attempt and file.step in self._values:
                values[file] = self._values[file.step]
            elif (name := file.path.parent.name) in stored:
                values[file] = stored[name]
        return values

    def _read_values(self) -> dict[str, float]:
        try:
            stored = json.loads(self._values_path.read_text())
            return {str(name): float(value) for name, value in stored.items()}
        except (OSError, ValueError):
            return {}

    def _write_values(self, values: Mapping[str, float]) -> None:
        partial = self._folder / f"values-{self._attempt}.partial"
        with suppress(
            OSError,
        ):  # a full disk may lose the best checkpoint, but not the trial
            partial.write_text(json.dumps(values))
            partial.replace(self._values_path)

    @property
    def _values_path(self) -> Path:
        return self._folder / "values.json"


def select_kept(
    known: Sequence[CheckpointFile],
    values: Mapping[CheckpointFile, float],
    keep: Keep,
    orientation: float,
) -> set[CheckpointFile]:
    """Return the checkpoints to keep: the last and the best. Of equal ones the newest are best.

    Args:
        known: checkpoints, oldest first.
        values: values at their steps, where known.
        keep: how many.
        orientation: turns a value into a loss.
    """
    newest_first = sorted(values, reverse=True)
    best_first = sorted(newest_first, key=lambda file: orientation * values[file])
    return {*known[-keep.last :], *best_first[: keep.best]}


def checkpoint_name(attempt: int, step: int, number: int) -> str:
    """Return the name of an attempt's checkpoint; `step` is -1 before the first report."""
    after = f"step-{step}" if step >= 0 else "start"
    return f"attempt-{attempt}-{after}-{number}"


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """Return the complete checkpoints in a trial's folder, oldest first.

    Others may be saved and removed meanwhile.
    """
    found = []
    for saved in folder.glob("attempt-*"):
        if _NAME.match(saved.name):
            with suppress(FileNotFoundError):
                found += [parse_checkpoint(path) for path in saved.iterdir()]
    return sorted(file for file in found if file is not None)


def step_of(checkpoint: Path | None) -> int:
    """Return the step after which a checkpoint was saved, -1 for no checkpoint."""
    file = parse_checkpoint(checkpoint) if checkpoint else None
    return -1 if file is None else file.step


def parse_checkpoint(path: Path) -> CheckpointFile | None:
    """Return what a checkpoint's path says, which exists or not; None for another path."""
    match = _NAME.match(path.parent.name)
    if match is None:
        return None
    attempt, step, number = match.groups()
    return CheckpointFile(
        attempt=int(attempt),
        number=int(number),
        step=-1 if step is None else int(step),
        path=path,
    )
