"""The failure of a study that ended without a result, with the objective's own words."""

from __future__ import annotations

from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyFailed
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.attempt_events import list_attempts
from tunesvc.queries.trials.trial_table import list_trials

LOOKED_AT = 20
"""First failed trials, among which one with a traceback is preferred."""


def find_failure(database: Database, name: str) -> StudyFailed | None:
    """Return the error of a study that ended without a result, or None when it has one or is not over.

    Raises:
        StudyNotFound: there is no such study.
    """
    view = get_study(database, name)
    if not view.is_failure:
        return None
    numbers = [row.number for row in list_trials(database, view.study_id, states=["failed"], limit=LOOKED_AT)]
    found = list_attempts(database, view.study_id, numbers=numbers) if numbers else ()
    reason = view.reason or "no trial came to a result"
    text = f"study {name!r} failed: {reason}"
    telling = sorted(
        (attempt for attempt in found if attempt.message),
        key=lambda attempt: attempt.traceback is None,
    )
    if not telling:
        return StudyFailed(text, name)
    first = telling[0]
    message = str(first.message)
    if message not in reason:
        text += f"; trial {first.trial_number}: {message}"
    return StudyFailed(text, name, first.trial_number, message, first.traceback)
