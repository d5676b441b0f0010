"""Failure of a study that ended without a result, with the objective's own message."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyFailed
from tunesvc.queries.rows import AttemptRow, StudyView
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.attempt_events import list_attempts
from tunesvc.queries.trials.trial_table import list_trials

EXAMINED_MAX = 20
"""First failed trials that are searched for one with a traceback."""


def find_failure(database: Database, name: str) -> StudyFailed | None:
    """Return the error of a study that ended without a result; None if it has one or runs.

    Raises:
        StudyNotFound: there is no such study.
    """
    view = get_study(database, name)
    if not view.is_failure:
        return None
    failed = list_trials(
        database,
        view.study_id,
        states=["failed"],
        limit=EXAMINED_MAX,
    )
    numbers = [row.number for row in failed]
    attempts = (
        list_attempts(
            database,
            view.study_id,
            numbers=numbers,
        )
        if numbers
        else ()
    )
    return failure_of(view, attempts)


def failure_of(view: StudyView, attempts: Sequence[AttemptRow]) -> StudyFailed:
    """Return the error of a failed study from the attempts of its first failed trials."""
    reason = view.reason or "no trial came to a result"
    text = f"study {view.name!r} failed: {reason}"
    with_message = [attempt for attempt in attempts if attempt.message]
    if not with_message:
        return StudyFailed(text, view.name)
    # The first attempt with a traceback, or else the first one.
    first = min(with_message, key=lambda attempt: attempt.traceback is None)
    message = str(first.message)
    if message not in reason:
        text += f"; trial {first.trial_number}: {message}"
    return StudyFailed(text, view.name, first.trial_number, message, first.traceback)
