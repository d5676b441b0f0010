"""One client's copy of a study's finished trials, kept fresh by reading only what can have changed.

Finished trials never change, and numbers become visible in order (they are given out under the study's row lock),
so a look asks for the states of the trials that were unfinished and of those beyond the last one seen, and then reads
the trials that have finished since. An unfinished trial is never kept: whoever wants it has it read afresh.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from itertools import chain
from operator import attrgetter

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tunesvc.store.frozen import TRIAL, freeze
from tunesvc.store.ids import trial_id
from tunesvc.store.prepared import Prepared

# a study without news gives one row of NULLs, a study that does not exist gives none
_NEWS = Prepared(
    """SELECT t.trial_id, t.state FROM studies s
       LEFT JOIN trials t ON t.trial_id > %(last)s AND t.trial_id < %(end)s
                          OR t.trial_id = ANY(CAST(%(unfinished)s AS bigint[]))
       WHERE s.study_id = %(study)s"""
)
_TRIALS = Prepared(TRIAL + " WHERE trial_id = ANY(CAST(%(ids)s AS bigint[]))")


class TrialCache:
    """The trials of one study. Safe to use from several threads."""

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._lock = threading.Lock()
        self._by_id: dict[int, FrozenTrial] = {}
        self._by_state: dict[TrialState, list[FrozenTrial]] = defaultdict(list)
        """The same, each state's by number."""
        self._unfinished: set[int] = set()
        self._last = trial_id(study_id, 0) - 1

    def finished(self, trial_id: int) -> FrozenTrial | None:
        """A trial, when it is known to be over."""
        return self._by_id.get(trial_id)

    def read(self, connection: sa.Connection, trial_id: int) -> FrozenTrial | None:
        """A trial as it is now; None when there is no such trial."""
        trials = _read(connection, [trial_id])
        with self._lock:
            self._keep(trials)
        return trials[0] if trials else None

    def look(self, connection: sa.Connection, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials that are now in one of `states`, or all, by number. They are shared: do not change them.

        Raises:
            KeyError: there is no such study.
        """
        with self._lock:
            read = _read(connection, self._news(connection, states))
            self._keep(read)
            runs = [trials for state, trials in self._by_state.items() if states is None or state in states]
            runs.append([trial for trial in read if not trial.state.is_finished() and _is_in(trial.state, states)])
            found = list(chain.from_iterable(runs))
        found.sort(key=attrgetter("number"))
        return found

    def _news(self, connection: sa.Connection, states: Container[TrialState] | None) -> list[int]:
        """Ids of the trials to read: those that have finished, and the others if their states are wanted."""
        since = {"last": self._last, "end": trial_id(self._study_id + 1, 0), "unfinished": list(self._unfinished)}
        rows = _NEWS.run(connection, {"study": self._study_id, **since}).all()
        if not rows:
            raise KeyError(f"there is no study with id {self._study_id}")
        wanted = []
        for new_id, name in rows:
            if new_id is None:
                continue
            self._last = max(self._last, new_id)
            if new_id in self._by_id:
                continue
            self._unfinished.add(new_id)  # until it has been read as finished
            state = TrialState[name.upper()]
            if state.is_finished() or _is_in(state, states):
                wanted.append(new_id)
        return wanted

    def _keep(self, trials: Iterable[FrozenTrial]) -> None:
        for trial in trials:
            if trial.state.is_finished() and trial._trial_id not in self._by_id:
                self._by_id[trial._trial_id] = trial
                insort(self._by_state[trial.state], trial, key=attrgetter("number"))
                self._unfinished.discard(trial._trial_id)


def _read(connection: sa.Connection, ids: Sequence[int]) -> list[FrozenTrial]:
    """Trials as they are now."""
    return [freeze(row) for row in _TRIALS.run(connection, {"ids": ids})] if ids else []


def _is_in(state: TrialState, states: Container[TrialState] | None) -> bool:
    return states is None or state in states
