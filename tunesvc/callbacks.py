"""Users' callbacks for finished trials, in Optuna's form: `callback(study, trial)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.runtime import study_requests
from tunesvc.util.user import whoami

Callback = Callable[[Any, FrozenTrial], None]
"""Gets Optuna's study object and a finished trial; runs between two steps of the coordinator."""

_ENDED = frozenset({"complete", "best", "pruned", "failed"})
"""Kinds of events about a trial that ended."""


class CallbackStudy(optuna.Study):
    """Optuna's study object with a `stop` that ends the study under its coordinator."""

    def __init__(self, name: str, storage: PgStorage, database: Database, study_id: int) -> None:
        super().__init__(study_name=name, storage=storage)
        self._database = database
        self._stored_id = study_id

    def stop(self) -> None:
        """Stop running trials and end the study; what they reported is kept."""
        study_requests.request(self._database, self._stored_id, "stop", {}, whoami())


class CallbackObserver:
    """Calls functions with each finished trial once it is stored; passes everything on.

    An exception of a callback ends the run; the study is kept and can be resumed.
    """

    def __init__(
        self,
        observer: Observer,
        callbacks: Sequence[Callback],
        database: Database,
        name: str,
        study_id: int,
    ) -> None:
        self._observer = observer
        self._callbacks = tuple(callbacks)
        self._storage = PgStorage(database)
        self._study = CallbackStudy(name, self._storage, database, study_id)
        self._study_id = study_id
        self._ended: list[int] = []
        """Trials that ended; their end may not be stored yet."""
        self._delivered = {trial.number for trial in self._finished()}

    def on_event(self, event: ProgressEvent) -> None:
        """Remember a trial that ended."""
        self._observer.on_event(event)
        if event.kind in _ENDED and event.number is not None:
            self._ended.append(event.number)

    def progress(self, progress: Progress) -> None:
        """Call the functions with the trials that are stored as finished by now."""
        self._observer.progress(progress)
        ended, self._ended = self._ended, []
        for number in ended:
            trial = self._storage.get_trial(trial_id(self._study_id, number))
            if trial.state.is_finished():
                self._call(trial)
            else:
                self._ended.append(number)

    def close(self) -> None:
        """Call the functions with the trials that ended with the run: paused ones have no event."""
        for trial in self._finished():
            self._call(trial)

    def _call(self, trial: FrozenTrial) -> None:
        if trial.number in self._delivered:
            return
        self._delivered.add(trial.number)
        for callback in self._callbacks:
            callback(self._study, trial)

    def _finished(self) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished()]
