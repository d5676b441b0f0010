"""Trials of a study, on a database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.client.local.local_studies import with_text_times
from tunesvc.client.log_position import log_position, parse_log_position
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import (
    AttemptRow,
    DecisionRow,
    LogRow,
    ReportCurve,
    RowPage,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.queries.studies import get_study, get_study_id
from tunesvc.queries.trials import attempt_events
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.pagination import Selection, count_trials, trial_page
from tunesvc.queries.trials.trial_table import get_trial, rows_of

if TYPE_CHECKING:
    from tunesvc.client.interface import ExportFormat
    from tunesvc.queries.checkpoint_files import KeptCheckpoint
    from tunesvc.queries.comparison import Fact

FOLLOW_S = 0.5
"""Seconds between two looks for new output."""


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
        selection = self._selection(self._view(study), where, sort)
        return trial_page(self._database, selection, after=after, limit=limit)

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        return count_trials(self._database, self._selection(self._view(study), where))

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes."""
        view = self._view(study)
        detail = get_trial(self._database, view.study_id, number)
        if detail is None:
            raise no_such_trial(view, number)
        return detail

    def curve(self, study: str, number: int) -> ReportCurve:
        """Return the reports of a trial by step."""
        view = self._view(study)
        self._row(view, number)
        return attempt_events.get_curve(self._database, view.study_id, number)

    def curves(
        self,
        study: str,
        *,
        max_points: int | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[ReportCurve]:
        """Return the curves of the next `limit` trials."""
        view = self._view(study)
        numbers = _next_numbers(view, after, limit)
        curves = attempt_events.get_curves(
            self._database,
            view.study_id,
            numbers=numbers,
            max_points=max_points,
        )
        return RowPage(curves, _after(view, numbers))

    def attempts(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AttemptRow]:
        """Return the attempts of the next `limit` trials."""
        view = self._view(study)
        numbers = _next_numbers(view, after, limit)
        attempts = attempt_events.list_attempts(self._database, view.study_id, numbers)
        return RowPage(attempts, _after(view, numbers))

    def decisions(
        self,
        study: str,
        *,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[DecisionRow]:
        """Return decisions about the study and its trials, the oldest first."""
        decisions = attempt_events.list_decisions(
            self._database,
            self._id_of(study),
            after=key_of(after),
            limit=limit + 1,
        )
        return page_of(decisions, limit, lambda row: row.decision_id)

    def logs(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
        limit: int = 1_000,
    ) -> RowPage[LogRow]:
        """Return a trial's output in order, of one attempt or of all."""
        view = self._view(study)
        self._row(view, number)
        rows = self._logs(view.study_id, number, attempt, after, limit + 1)
        return page_of(rows, limit, log_position)

    def follow(
        self,
        study: str,
        number: int,
        *,
        attempt: int | None = None,
        after: str = "",
    ) -> Iterator[LogRow]:
        """Yield a trial's output as it comes, until the trial has finished."""
        view = self._view(study)
        while True:
            is_finished = self._row(view, number).is_finished
            while rows := self._logs(view.study_id, number, attempt, after, 1_000):
                yield from rows
                after = log_position(rows[-1])
            if is_finished:
                return
            time.sleep(FOLLOW_S)

    def export(
        self,
        study: str,
        format: ExportFormat,
        *,
        where: str = "",
        sort: str = "number",
        limit: int | None = None,
    ) -> Iterator[bytes]:
        """Return trials as a file in pieces."""
        from tunesvc.client.local.export_pieces import export_pieces
        from tunesvc.queries.export.export_files import Export

        view = self._view(study)
        names = names_of(self._database, view)
        selection = Selection.of(view.study_id, names, where, sort)
        return export_pieces(Export(self._database, view, names, selection, limit), format)

    def compare(self, study: str, numbers: Sequence[int]) -> tuple[Fact, ...]:
        """Return results, parameters and execution of several trials by key."""
        from tunesvc.queries.comparison import trial_facts

        details = [self.get(study, number) for number in numbers]
        return with_text_times(trial_facts(self._view(study), details))

    def best_checkpoint(self, study: str, number: int | None = None) -> KeptCheckpoint:
        """Return the best checkpoint of the best trial, or of a trial."""
        from tunesvc.queries.checkpoint_files import find_best_checkpoint

        return find_best_checkpoint(self._database, self._view(study), number)

    def checkpoints(self, study: str, number: int | None = None) -> tuple[KeptCheckpoint, ...]:
        """Return the kept checkpoints of a trial, oldest first, or of the newest trials."""
        from tunesvc.queries.checkpoint_files import list_checkpoints

        return list_checkpoints(self._database, self._view(study), number)

    def fetch_checkpoint(self, study: str, number: int, checkpoint: str, folder: Path) -> Path:
        """Copy a checkpoint's file or folder into a folder; return the copy's path."""
        from tunesvc.artifacts.checkpoint_archive import unpack_into
        from tunesvc.queries.checkpoint_files import open_checkpoint

        found = open_checkpoint(self._database, self._view(study), number, checkpoint)
        return unpack_into(found.archive(), folder)

    def _view(self, study: str) -> StudyView:
        return get_study(self._database, study, self._among)

    def _id_of(self, study: str) -> int:
        return get_study_id(self._database, study, self._among)

    def _selection(self, view: StudyView, where: str, sort: str = "number") -> Selection:
        return Selection.of(view.study_id, names_of(self._database, view), where, sort)

    def _row(self, view: StudyView, number: int) -> TrialRow:
        rows = rows_of(self._database, view.study_id, [number])
        if not rows:
            raise no_such_trial(view, number)
        return rows[0]

    def _logs(
        self,
        study_id: int,
        number: int,
        attempt: int | None,
        after: str,
        limit: int,
    ) -> tuple[LogRow, ...]:
        return attempt_events.list_logs(
            self._database,
            study_id,
            number,
            attempt=attempt,
            after=parse_log_position(after),
            limit=limit,
        )


def no_such_trial(view: StudyView, number: int) -> StudyNotFound:
    """Return the error for a trial that does not exist."""
    total = view.counts.total
    there = f"its trials are 0 to {total - 1}" if total else "it has no trials yet"
    return StudyNotFound(f"study {view.name!r} has no trial {number}: {there}")


def _next_numbers(view: StudyView, after: str, limit: int) -> range:
    last = key_of(after)
    first = 0 if last is None else last + 1
    return range(first, min(first + limit, view.counts.total))


def _after(view: StudyView, numbers: range) -> str | None:
    return str(numbers[-1]) if numbers and numbers[-1] + 1 < view.counts.total else None
