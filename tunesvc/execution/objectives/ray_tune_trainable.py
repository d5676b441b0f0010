"""Runs classes that inherit from `ray.tune.Trainable`, without Ray Tune.

A trial ends when a result contains `done`, when it reaches the study's constant `stop` (see
`ray_tune_function`), or when it is asked to stop. Imports Ray Tune.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune import Trainable
from ray.tune.result import TRIAL_INFO

from tunesvc.errors import Pruned
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.objectives.ray_tune_function import (
    TuneSession,
    config_of,
    tune_session,
)
from tunesvc.execution.objectives.ray_tune_parameters import register_parameters
from tunesvc.execution.ray_internals import restorable

_COUNTERS = ("training_iteration", "timesteps_total", "episodes_total")
_SAVING_SHARE = 0.05
"""Saving takes about this share of the time at most."""


class Trainables:
    """Runs attempts of one class. An instance with `reset_config` is reused."""

    def __init__(self, kind: Any) -> None:
        self._kind = _with_local_logdir(kind)
        self._idle: Any = None

    def __call__(self, attempt: Attempt) -> Mapping[str, float]:
        """Run an attempt. Its result is its last report."""
        register_parameters(self._kind)
        config, stop = config_of(attempt)
        with tune_session(attempt, stop) as session:
            config = {**config, TRIAL_INFO: _trial_info(session)}
            trainable = self._make(config, session)
            try:
                is_done = _train(trainable, attempt, session)
            except Exception:
                trainable.stop()
                raise
            if _overrides(trainable, "reset_config"):
                self._idle = trainable
            else:
                trainable.stop()
        if not is_done:
            raise Pruned(
                f"{session.trial_name} was stopped after iteration {session.iteration}",
            )
        return {}

    def _make(self, config: dict[str, Any], session: TuneSession) -> Any:
        trainable, self._idle = self._idle, None
        if trainable is not None and not trainable.reset(dict(config)):
            trainable.stop()
            trainable = None
        made = trainable or self._kind(config)
        if session.loaded_checkpoint is not None:
            done = {"training_iteration": session.iteration}
            made.restore(restorable(session.loaded_checkpoint, done))
        return made


def _train(trainable: Any, attempt: Attempt, session: TuneSession) -> bool:
    """Train until the trial is done or asked to stop. Return True if it is done."""
    saves = _overrides(trainable, "save_checkpoint")
    save_at_s = 0.0
    while True:
        result = trainable.train()
        session.take(_own(result, trainable, attempt.job.metrics))
        if session.is_done(result):
            return True
        is_stopped = attempt.stop_requested
        is_due = result.get("should_checkpoint") or time.monotonic() >= save_at_s
        if saves and (is_stopped or is_due):
            began_s = time.monotonic()
            _save(trainable, attempt, session.iteration)
            ended_s = time.monotonic()
            save_at_s = ended_s + (ended_s - began_s) / _SAVING_SHARE
        if is_stopped:
            return False


def _save(trainable: Any, attempt: Attempt, iteration: int) -> None:
    with tempfile.TemporaryDirectory(dir=attempt.directory, prefix="checkpoint-") as folder:
        trainable.save(folder)
        attempt.checkpoint(Path(folder), iteration)


def _own(
    result: Mapping[str, Any],
    trainable: Any,
    objectives: tuple[str, ...],
) -> dict[str, Any]:
    """Return a result without Ray's own entries, such as the host, but with all objectives."""
    filled_in = {*trainable.get_auto_filled_metrics(), *_COUNTERS} - {*objectives}
    return {name: value for name, value in result.items() if name not in filled_in}


def _overrides(trainable: Any, method: str) -> bool:
    return getattr(type(trainable), method) is not getattr(Trainable, method)


def _trial_info(session: TuneSession) -> SimpleNamespace:
    names = ("trial_id", "trial_name", "trial_resources")
    return SimpleNamespace(**{name: getattr(session, name) for name in names})


def _with_local_logdir(kind: Any) -> Any:
    """Return a subclass that logs to the working directory instead of the user's home."""

    def set_up_logdir(self: Any) -> None:
        self._logdir = str(Path.cwd())

    members = {"_setup_logdir": set_up_logdir, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)
