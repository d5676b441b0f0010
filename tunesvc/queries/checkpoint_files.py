"""Checkpoints of trials, with the values at which they were saved.

Only reads. They are in a folder, which this machine has or not, or in an object store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyNotFound, TuneError
from tunesvc.execution.agents.uploaded_checkpoints import UploadedCheckpoint, UploadedCheckpoints
from tunesvc.execution.attempt.checkpoints import CheckpointFile, parse_checkpoint
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.rows import StudyView
from tunesvc.queries.trials.attempt_events import get_curves, list_attempts
from tunesvc.util.paths import is_url


class CheckpointsElsewhere(TuneError):
    """The checkpoints of a trial are in a folder that is not on this machine."""


TRIALS_MAX = 200
"""Most trials whose checkpoints are listed together: each is a look into the store."""


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """One checkpoint of a trial."""

    trial_number: int
    step: int | None
    """Step of the last report before the checkpoint; None before the first report."""
    value: float | None
    """The first objective at `step`; None where nothing was reported there."""
    path: str
    """File or folder, under the name that the objective gave it; an address in an object store."""
    checkpoint: str
    """Its name among those of the trial, such as `attempt-1-step-9-2`."""
    bytes: int
    """Size of all its files."""


def list_checkpoints(
    database: Database,
    view: StudyView,
    number: int | None = None,
) -> tuple[KeptCheckpoint, ...]:
    """Return a trial's checkpoints, oldest first, or those of a study's newest trials.

    Raises:
        StudyNotFound: the study has no trial of that number.
        ArtifactStoreError: the store does not answer.
    """
    _require_trial(view, number)
    saved = _saved(database, view, None if number is None else [number])
    numbers = sorted(saved)[-TRIALS_MAX:]
    curves = get_curves(database, view.study_id, numbers=numbers) if numbers else ()
    values = {
        (curve.trial_number, point.attempt, point.step): point.value
        for curve in curves
        for point in curve.points
    }
    return tuple(
        _with_value(found, trial, values)
        for trial in numbers
        for found in UploadedCheckpoints.of(saved[trial][-1]).list()
    )


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
    _require_trial(view, number)
    saved = _saved(database, view, [number]).get(number)
    if saved is None:
        raise TuneError(
            f"trial {number} of study {view.name!r} has no checkpoint: its objective never "
            "called `trial.checkpoint(...)`"
        )
    checkpoints = list_checkpoints(database, view, number)
    if not checkpoints:
        kind = TuneError if is_url(saved[-1]) else CheckpointsElsewhere
        raise kind(_missing(number, saved[-1]))
    orientation = view.objectives[0].orientation

    def loss(checkpoint: KeptCheckpoint) -> float:
        return math.inf if checkpoint.value is None else checkpoint.value * orientation

    # `min` returns the first of equals; reversed, that is the newest.
    return min(reversed(checkpoints), key=loss)


def open_checkpoint(
    database: Database,
    view: StudyView,
    number: int,
    checkpoint: str,
) -> UploadedCheckpoint:
    """Return a checkpoint of a trial, to read its files.

    Raises:
        StudyNotFound: there is no such trial, or none of its checkpoints has that name.
        ArtifactStoreError: the store does not answer.
    """
    _require_trial(view, number)
    for location in _saved(database, view, [number]).get(number, ())[-1:]:
        for found in UploadedCheckpoints.of(location).list():
            if found.checkpoint == checkpoint:
                return found
    raise StudyNotFound(
        f"trial {number} of study {view.name!r} has no checkpoint {checkpoint!r}: "
        "`tune artifacts` lists those that are kept"
    )


def _require_trial(view: StudyView, number: int | None) -> None:
    if number is not None and not 0 <= number < view.counts.total:
        raise StudyNotFound(f"study {view.name!r} has no trial {number}")


def _saved(
    database: Database,
    view: StudyView,
    numbers: Sequence[int] | None,
) -> dict[int, list[str]]:
    """Return the recorded locations of checkpoints by trial."""
    saved: dict[int, list[str]] = {}
    for attempt in list_attempts(database, view.study_id, numbers=numbers):
        if attempt.checkpoint:
            saved.setdefault(attempt.trial_number, []).append(attempt.checkpoint)
    return saved


def _missing(number: int, location: str) -> str:
    if is_url(location):
        return f"the checkpoints of trial {number} were at {location}, and are gone"
    return (
        f"the checkpoints of trial {number} lay in {Path(location).parent.parent}, which is not on "
        "this machine: run this where the trials ran, or where `TUNE_CHECKPOINTS` is mounted"
    )


def _with_value(
    found: UploadedCheckpoint,
    number: int,
    values: Mapping[tuple[int, int, int], float | None],
) -> KeptCheckpoint:
    file = _file(found)
    value = values.get((number, file.attempt, file.step))
    is_number = value is not None and not math.isnan(value)
    step = None if file.step < 0 else file.step
    location = found.location
    return KeptCheckpoint(
        number, step, value if is_number else None, location, found.checkpoint, found.size
    )


def _file(found: UploadedCheckpoint) -> CheckpointFile:
    file = parse_checkpoint(Path(found.checkpoint) / found.name)
    if file is None:
        raise TuneError(f"{found.checkpoint} is no checkpoint's name")
    return file
