"""A study that a server runs, as following it has left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesvc.client.interface import TuneClient
from tunesvc.errors import StudyFailed
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.study_failure import EXAMINED_MAX, failure_of

if TYPE_CHECKING:
    from tunesvc.search.analysis.recommend import Recommendation


class FollowedStudy:
    """Result of a study, read through a client. `tunesvc.Study` has the same properties."""

    def __init__(self, client: TuneClient, view: StudyView, *, interrupted: bool = False) -> None:
        """`interrupted`: following was, while the study continues."""
        self.name = view.name
        self.view = view
        self.interrupted = interrupted
        self._client = client
        self._answer: tuple[Recommendation | None, Sequence[TrialRow]] | None = None

    @property
    def answer(self) -> tuple[Recommendation | None, Sequence[TrialRow]]:
        """The recommendation and its trials; nothing if following was interrupted."""
        if self.interrupted:
            return None, ()
        if self._answer is None:
            best = self._client.insights.best(self.name)
            self._answer = best.recommendation, best.rows
        return self._answer

    @property
    def best_trials(self) -> Sequence[TrialRow]:
        """The Pareto front, or the recommended trial."""
        rows = self.answer[1]
        return rows if len(self.view.objectives) > 1 else rows[:1]

    @property
    def failure(self) -> StudyFailed | None:
        """The error of a study that ended without a result; None for any other."""
        if not self.view.is_failure:
            return None
        attempts = self._client.trials.attempts(self.name, limit=EXAMINED_MAX).rows
        return failure_of(self.view, attempts)
