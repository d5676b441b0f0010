"""One client's copy of a study's trials, kept fresh by reading only what can have changed.

Finished trials never change, and numbers become visible in order (they are given out under the study's row lock),
so a refresh reads the trials that were unfinished and those beyond the last one seen.
"""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from tunesvc.store.frozen import freeze

# a study without news gives one row of NULLs, a study that does not exist gives none
_NEWS = sa.text(
    """SELECT t.trial_id, t.number, t.state, t."values" AS objectives, t.started_at, t.ended_at
       FROM studies s LEFT JOIN trials t
         ON t.study_id = s.study_id AND (t.number > :last OR t.trial_id = ANY(CAST(:unfinished AS bigint[])))
       WHERE s.study_id = :study ORDER BY t.number"""
)


class TrialCache:
    """The trials of one study. Safe to use from several threads."""

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._lock = threading.Lock()
        self._trials: dict[int, FrozenTrial] = {}
        self._unfinished: set[int] = set()
        self._last = -1

    def finished(self, number: int) -> FrozenTrial | None:
        """A trial, when it is known and over."""
        trial = self._trials.get(number)
        return trial if trial is not None and trial.state.is_finished() else None

    def refresh(self, connection: sa.Connection) -> list[FrozenTrial]:
        """All trials as they are now, by number. The trials are shared: do not change them.

        Raises:
            KeyError: there is no such study.
        """
        with self._lock:
            rows = self._news(connection)
            for trial in freeze(connection, rows):
                self._keep(trial)
            return [self._trials[number] for number in sorted(self._trials)]

    def _news(self, connection: sa.Connection) -> list[sa.Row[Any]]:
        values = {"study": self._study_id, "last": self._last, "unfinished": list(self._unfinished)}
        rows = connection.execute(_NEWS, values).all()
        if not rows:
            raise KeyError(f"there is no study with id {self._study_id}")
        return [row for row in rows if row.trial_id is not None]

    def _keep(self, trial: FrozenTrial) -> None:
        self._trials[trial.number] = trial
        self._last = max(self._last, trial.number)
        if trial.state.is_finished():
            self._unfinished.discard(trial._trial_id)
        else:
            self._unfinished.add(trial._trial_id)
