"""Calls Ray Tune's callbacks in this process, with what is stored of a study.

A thread follows the database while the study runs, so a slow callback delays no trial, and a call
is made only for what is committed. At the end it catches up before `fit` returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunesvc import api
from tunesvc.errors import DatabaseUnavailable, StudyNotFound
from tunesvc.queries.rows import Point, StudyView, TrialRow
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.ray_tune.callback_trial import STATUS, CallbackTrial

_PAUSE_S = 0.5
_SHARE = 10
"""A look is followed by a pause of at least so many times its duration."""


class CallbackFollower:
    """Calls callbacks with what has happened since the last look.

    Args:
        callbacks: Ray's.
        study: name of the study.
        database_url: of its database.
        trainable: name of the function.
        name_trial: `TuneConfig(trial_name_creator=...)`.
        folder: of files that loggers write.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        study: str,
        database_url: str | None,
        trainable: str,
        name_trial: Callable[[Any], str] | None,
        folder: Path,
    ) -> None:
        self._callbacks = tuple(callbacks)
        self._study = study
        self._database_url = database_url
        self._trainable = trainable
        self._name_trial = name_trial
        self._folder = folder
        self._trials: dict[int, CallbackTrial] = {}
        self._steps: dict[int, int] = {}
        """The last step that callbacks know, by trial."""
        self._looks = 0

    def skip_known(self) -> None:
        """Leave out what an earlier run of the study has called back."""
        for view, row, points in self._read(frozenset()):
            if row.is_finished:
                self._trial(view, row).status = "TERMINATED"
            elif points:
                self._steps[row.number] = points[-1].step

    def look(self) -> None:
        """Call back what is new. A study that is not stored yet has nothing."""
        self._looks += 1
        done = {number for number, trial in self._trials.items() if trial.is_finished}
        for view, row, points in self._read(done):
            if row.started_at is not None:
                self._call_back(view, row, points)

    def end(self) -> None:
        """Call back the end of the experiment."""
        for callback in self._callbacks:
            callback.on_experiment_end(trials=list(self._trials.values()))

    def _read(
        self, without: set[int] | frozenset[int]
    ) -> Iterator[tuple[StudyView, TrialRow, Sequence[Point]]]:
        database = api.shared_database(self._database_url)
        try:
            view = get_study(database, self._study)
        except StudyNotFound:
            return
        rows = [
            row
            for row in view.as_given(list_trials(database, view.study_id))
            if row.number not in without
        ]
        # After the rows: a trial that has finished there has its whole curve here.
        numbers = [row.number for row in rows]
        curves = get_curves(database, view.study_id, numbers=numbers) if numbers else ()
        points = {curve.trial_number: curve.points for curve in curves}
        for row in sorted(rows, key=lambda row: row.number):
            yield view, row, points.get(row.number, ())

    def _trial(self, view: StudyView, row: TrialRow) -> CallbackTrial:
        if row.number not in self._trials:
            constants = {} if view.spec is None else dict(view.spec.constants)
            constants.pop("stop", None)
            trial = CallbackTrial(
                row.number, self._study, self._trainable, row.params, constants, self._folder
            )
            trial.name_by(self._name_trial)
            self._trials[row.number] = trial
        return self._trials[row.number]

    def _call_back(self, view: StudyView, row: TrialRow, points: Sequence[Point]) -> None:
        is_new = row.number not in self._trials
        trial = self._trial(view, row)
        if is_new:
            trial.status = "RUNNING"
            if any(hasattr(callback, "log_trial_start") for callback in self._callbacks):
                trial.init_local_path()  # Ray's loggers expect it
            self._call("on_trial_start", trial)
        known = self._steps.get(row.number, -1)
        for point in (point for point in points if point.step > known):
            self._steps[row.number] = point.step
            self._report(trial, row, point.step, _metrics_of(view, point), point.reported_at)
        if not row.is_finished:
            trial.status = STATUS.get(row.state, "RUNNING")
            return
        if row.number not in self._steps and row.values is not None and row.ended_at is not None:
            names = (objective.name for objective in view.objectives)
            returned = {**dict(zip(names, row.values, strict=True)), **row.metrics}
            self._report(trial, row, 1, returned, row.ended_at)
        trial.last_result["done"] = True
        trial.status = "ERROR" if row.state == "failed" else "TERMINATED"
        is_error = trial.status == "ERROR"
        self._call("on_trial_error" if is_error else "on_trial_complete", trial)

    def _report(
        self, trial: CallbackTrial, row: TrialRow, step: int, metrics: Mapping[str, float], at: Any
    ) -> None:
        began = row.started_at or at
        result = {
            **metrics,
            "training_iteration": step,
            "trial_id": trial.trial_id,
            "timestamp": int(at.timestamp()),
            "date": f"{at:%Y-%m-%d_%H-%M-%S}",
            "time_total_s": (at - began).total_seconds(),
            "done": False,
            "config": trial.config,
        }
        trial.last_result = result
        self._call("on_trial_result", trial, result=result)

    def _call(self, name: str, trial: CallbackTrial, **given: Any) -> None:
        for callback in self._callbacks:
            trials = list(self._trials.values())
            getattr(callback, name)(iteration=self._looks, trials=trials, trial=trial, **given)


def _metrics_of(view: StudyView, point: Point) -> dict[str, float]:
    value = {} if point.value is None else {view.objectives[0].name: point.value}
    return {**value, **point.metrics}


@contextmanager
def called_back(follower: CallbackFollower, interrupt: threading.Event) -> Iterator[None]:
    """Follow a study during the block. An error of a callback ends the run and is raised."""
    ended = threading.Event()
    errors: list[Exception] = []

    def follow() -> None:
        try:
            while not ended.is_set():
                began = time.monotonic()
                with suppress(DatabaseUnavailable):  # the run waits for it, and so does this
                    follower.look()
                ended.wait(max(_PAUSE_S, _SHARE * (time.monotonic() - began)))
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            errors.append(error)
            interrupt.set()

    thread = threading.Thread(target=follow, name="ray callbacks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]
    follower.look()
    follower.end()
