"""A client's cache of a study's finished trials, updated by reading only possible changes.

Finished trials never change, and numbers become visible in order, as they are assigned under the
study's row lock. So an update reads the states of unfinished trials and of those after the last
known one, and then the requested trials among those that have finished since. Unfinished trials are
not cached. Finished ones are read only on request: a sampler that looks for waiting trials does not
load them.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from itertools import chain
from operator import attrgetter

from optuna.trial import FrozenTrial, TrialState

from tunesvc.db.engine.autocommit import AutocommitPool
from tunesvc.db.engine.statements import PreparedStatement
from tunesvc.db.optuna.frozen_trials import STATES, TRIAL, freeze
from tunesvc.db.schema.ids import trial_id
from tunesvc.util.optuna_internals import trial_id_of

# A study without changes gives one row of NULLs, a study that does not exist gives none.
_NEWS = PreparedStatement(
    """SELECT t.trial_id, t.state FROM studies s
       LEFT JOIN trials t ON t.trial_id > %(last)s AND t.trial_id < %(end)s
                          OR t.trial_id = ANY(CAST(%(unfinished)s AS bigint[]))
       WHERE s.study_id = %(study)s"""
)
_TRIALS = PreparedStatement(TRIAL + " WHERE trial_id = ANY(CAST(%(ids)s AS bigint[]))")


class TrialCache:
    """The trials of one study; safe to use from several threads."""

    def __init__(self, autocommit: AutocommitPool, study_id: int) -> None:
        self._autocommit = autocommit
        self._study_id = study_id
        self._lock = threading.Lock()
        self._by_id: dict[int, FrozenTrial] = {}
        self._by_state: dict[TrialState, list[FrozenTrial]] = defaultdict(list)
        """The same trials by state, in order of their numbers."""
        self._unfinished: set[int] = set()
        self._unread: dict[int, TrialState] = {}
        """Finished trials that have not been requested yet."""
        self._last = trial_id(study_id, 0) - 1

    def read(self, trial_id: int) -> FrozenTrial | None:
        """Return the current trial, or None when there is no such trial."""
        known = self._by_id.get(trial_id)
        if known is not None:
            return known
        trials = self._read([trial_id])
        with self._lock:
            self._keep(trials)
        return trials[0] if trials else None

    def look(self, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials in one of `states`, or all, by number; shared: do not change them.

        Raises:
            KeyError: there is no such study.
        """
        with self._lock:
            read = self._read(self._news(states))
            self._keep(read)
            selected = [trials for state, trials in self._by_state.items() if _is_in(state, states)]
            unfinished = [trial for trial in read if not trial.state.is_finished()]
            selected.append([trial for trial in unfinished if _is_in(trial.state, states)])
            found = list(chain.from_iterable(selected))
        found.sort(key=attrgetter("number"))
        return found

    def _news(self, states: Container[TrialState] | None) -> list[int]:
        """Return the ids to read: trials in one of `states`, without cached ones."""
        since = {
            "last": self._last,
            "end": trial_id(self._study_id + 1, 0),
            "unfinished": list(self._unfinished),
        }
        rows = self._autocommit.rows(_NEWS, study=self._study_id, **since)
        if not rows:
            raise KeyError(f"there is no study with id {self._study_id}")
        now = {new_id: STATES[name] for new_id, name in rows if new_id is not None}
        self._last = max([self._last, *now])
        self._unfinished = {new_id for new_id, state in now.items() if not state.is_finished()}
        for new_id in now.keys() - self._unfinished - self._by_id.keys():
            self._unread[new_id] = now[new_id]
        selected = [new_id for new_id, state in self._unread.items() if _is_in(state, states)]
        return selected + [new_id for new_id in self._unfinished if _is_in(now[new_id], states)]

    def _read(self, ids: Sequence[int]) -> list[FrozenTrial]:
        """Return the current trials."""
        return [freeze(row) for row in self._autocommit.rows(_TRIALS, ids=ids)] if ids else []

    def _keep(self, trials: Iterable[FrozenTrial]) -> None:
        for trial in trials:
            if not trial.state.is_finished():
                continue
            finished = trial_id_of(trial)
            if finished not in self._by_id:
                self._by_id[finished] = trial
                insort(self._by_state[trial.state], trial, key=attrgetter("number"))
            self._unfinished.discard(finished)
            self._unread.pop(finished, None)


def _is_in(state: TrialState, states: Container[TrialState] | None) -> bool:
    return states is None or state in states
