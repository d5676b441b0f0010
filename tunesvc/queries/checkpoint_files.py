"""Checkpoints of trials on this machine, with the values at which they were saved.

Only reads; copies no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyNotFound, TuneError
from tunesvc.execution.attempt.checkpoints import CheckpointFile, checkpoint_files
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.rows import StudyView
from tunesvc.queries.trials.attempt_events import get_curve, list_attempts


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """One checkpoint of a trial."""

    trial_number: int
    step: int | None
    """Step of the last report before the checkpoint; None before the first report."""
    value: float | None
    """The first objective at `step`; None where nothing was reported there."""
    path: Path
    """File or folder, under the name that the objective gave it."""


def find_best_checkpoint(
    database: Database,
    view: StudyView,
    number: int | None = None,
) -> KeptCheckpoint:
    """Return the best checkpoint of the best trial, or of trial `number`.

    This is the checkpoint at the best value of the first objective, or the newest one if no
    checkpoint has a value.

    Raises:
        StudyNotFound: the study has no trial of that number.
        TuneError: the trial has no checkpoint, its files are not on this machine, or no trial is
            the best yet.
    """
    if number is None:
        try:
            number = find_best_trial(database, view).number
        except TuneError as error:
            raise TuneError(f"{error}, so none is the best: name a trial") from None
    folder = _folder(database, view, number)
    files = checkpoint_files(folder)
    if not files:
        raise TuneError(
            f"the checkpoints of trial {number} lay in {folder}, which is not on this machine: "
            "run this where the trials ran, or where `TUNE_CHECKPOINTS` is mounted"
        )
    points = get_curve(database, view.study_id, number).points
    values = {(point.attempt, point.step): point.value for point in points}
    checkpoints = [_with_value(file, number, values) for file in files]
    orientation = view.objectives[0].orientation

    def loss(checkpoint: KeptCheckpoint) -> float:
        return math.inf if checkpoint.value is None else checkpoint.value * orientation

    # `min` returns the first of equals; reversed, that is the newest.
    return min(reversed(checkpoints), key=loss)


def _folder(database: Database, view: StudyView, number: int) -> Path:
    """Return the folder with the checkpoints of a trial."""
    if not 0 <= number < view.counts.total:
        raise StudyNotFound(f"study {view.name!r} has no trial {number}")
    attempts = list_attempts(database, view.study_id, numbers=[number])
    saved = [attempt.checkpoint for attempt in attempts if attempt.checkpoint]
    if not saved:
        raise TuneError(
            f"trial {number} of study {view.name!r} has no checkpoint: its objective never "
            "called `trial.checkpoint(...)`"
        )
    return Path(saved[-1]).parent.parent


def _with_value(
    file: CheckpointFile,
    number: int,
    values: Mapping[tuple[int, int], float | None],
) -> KeptCheckpoint:
    value = values.get((file.attempt, file.step))
    is_number = value is not None and not math.isnan(value)
    step = None if file.step < 0 else file.step
    return KeptCheckpoint(number, step, value if is_number else None, file.path)
