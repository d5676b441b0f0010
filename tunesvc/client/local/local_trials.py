"""Trials of a study, on a database."""

from __future__ import annotations

from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import RowPage, StudyView, TrialDetail, TrialRow
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.pagination import Selection, count_trials, trial_page
from tunesvc.queries.trials.trial_table import get_trial


class LocalTrials:
    """See `TrialOperations`."""

    def __init__(self, database: Database, among: StudyScope) -> None:
        self._database = database
        self._among = among

    def page(
        self,
        study: str,
        *,
        where: str = "",
        sort: str = "number",
        after: str = "",
        limit: int = 100,
    ) -> RowPage[TrialRow]:
        """Return trials that match a filter, in an order."""
        selection = self._selection(study, where, sort)
        return trial_page(self._database, selection, after=after, limit=limit)

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        return count_trials(self._database, self._selection(study, where))

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes."""
        view = get_study(self._database, study, self._among)
        detail = get_trial(self._database, view.study_id, number)
        if detail is None:
            raise no_such_trial(view, number)
        return detail

    def _selection(self, study: str, where: str, sort: str = "number") -> Selection:
        view = get_study(self._database, study, self._among)
        return Selection.of(view.study_id, names_of(self._database, view), where, sort)


def no_such_trial(view: StudyView, number: int) -> StudyNotFound:
    """Return the error for a trial that does not exist."""
    total = view.counts.total
    there = f"its trials are 0 to {total - 1}" if total else "it has no trials yet"
    return StudyNotFound(f"study {view.name!r} has no trial {number}: {there}")
