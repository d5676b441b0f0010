"""Runs functions written for Ray Tune, with a session object of our own.

`ray.tune.report`, `get_checkpoint` and `get_context` look up one session object in the process.
Ours replaces it while the function runs. Imports Ray Tune.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import Checkpoint, PlacementGroupFactory

from tunesvc.errors import BadReport, Pruned
from tunesvc.execution import ray_internals
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.attempt.checkpoints import step_of
from tunesvc.execution.objectives.ray_tune_parameters import register_parameters
from tunesvc.execution.objectives.ray_tune_space import nested
from tunesvc.trial import as_json, as_number, flattened, is_attribute, is_name

_DONE = "done"
_STOP = "stop"
"""A constant of this name is Ray's `stop`: by metric, the value that ends a trial."""
_CONTROL = frozenset({_DONE, "should_checkpoint"})
"""Entries of a result that control Ray Tune."""


class ReportedDone(BaseException):
    """Raised inside a Ray Tune function by its last report.

    `except Exception` does not catch it.
    """


def call(function: Callable[..., object], attempt: Attempt) -> object:
    """Call a Ray Tune function with its config, in a working directory of its own."""
    register_parameters(function)
    config, stop = config_of(attempt)
    with tune_session(attempt, stop):
        try:
            returned = function(config)
        except ReportedDone:
            return None
    if isinstance(returned, Mapping):
        return {name: value for name, value in returned.items() if name not in _CONTROL}
    return returned


def config_of(attempt: Attempt) -> tuple[dict[str, Any], Mapping[str, float]]:
    """Return a trial's config and its `stop` criteria, see `_STOP`."""
    config = nested(attempt.launch.params)
    if isinstance(config.get(_STOP), Mapping):
        return config, dict(flattened(config.pop(_STOP)))
    return config, {}


@contextmanager
def tune_session(
    attempt: Attempt,
    stop: Mapping[str, float] | None = None,
) -> Iterator[TuneSession]:
    """Let the functions of `ray.tune` act for this attempt, in its directory.

    Only one at a time per process.
    """
    session = TuneSession(attempt, stop or {})
    before = os.getcwd()  # noqa: PTH109  # as text for the environment
    os.environ.setdefault("TUNE_ORIG_WORKING_DIR", before)
    if os.environ.get("RAY_CHDIR_TO_TRIAL_DIR", "1") != "0":
        os.chdir(attempt.directory)
    try:
        with ray_internals.tune_session(session):
            yield session
    finally:
        os.chdir(before)


class TuneSession:
    """The part of Ray's session that `ray.tune` uses."""

    world_rank = None
    """None marks a Tune function, as opposed to a Train worker."""
    metadata: Mapping[str, Any] = {}

    def __init__(self, attempt: Attempt, stop: Mapping[str, float]) -> None:
        self._attempt = attempt
        self._stop = stop
        self._attributes: dict[str, str] = {}
        restored = attempt.trial().restored()
        self.iteration = max(step_of(restored), 0)
        """Number of reports: Ray's `training_iteration`, from 1, continued after a checkpoint."""
        self.loaded_checkpoint = Checkpoint.from_directory(str(restored)) if restored else None
        self.experiment_name = attempt.job.study
        self.run_id = attempt.job.study
        self.trial_id = str(attempt.launch.attempt)
        self.trial_name = f"{attempt.job.study}_{attempt.launch.trial_number}"

    def report(self, metrics: Mapping[str, Any], checkpoint: Any = None) -> None:
        """Report a training iteration with its metrics and, optionally, a checkpoint.

        Raises:
            Pruned: the trial has been asked to stop.
            ReportedDone: the metrics contain `done`, or have reached the study's `stop` criteria.
            BadReport: the study's metric is not a number.
        """
        self.take(metrics)
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self._attempt.checkpoint(Path(folder), self.iteration)
        if self.is_done(metrics):
            raise ReportedDone
        if self._attempt.stop_requested:
            raise Pruned(
                f"{self.trial_name} was asked to stop after iteration {self.iteration}",
            )

    def take(self, metrics: Mapping[str, Any]) -> None:
        """Count an iteration and report its numbers.

        Text and booleans become attributes of the trial. Anything else is ignored, because Ray
        Tune allows any value in a result.
        """
        self.iteration += 1
        flat = {name: value for name, value in flattened(metrics) if name not in _CONTROL}
        if numbers := numbers_of(flat, self._attempt.job.metrics):
            self._attempt.report(self.iteration, numbers)
        for name, value in flat.items():
            is_short = not isinstance(value, (list, tuple))
            if name not in numbers and is_name(name) and is_attribute(value) and is_short:
                self._keep(name, as_json(name, value))

    def is_done(self, metrics: Mapping[str, Any]) -> bool:
        """Return True if the last result ends the trial."""
        if metrics.get(_DONE):
            return True
        reached = {"training_iteration": self.iteration, **dict(flattened(metrics))}
        return any(name in reached and reached[name] >= limit for name, limit in self._stop.items())

    def _keep(self, name: str, text: str) -> None:
        if self._attributes.get(name) != text:
            self._attributes[name] = text
            self._attempt.set_user_attr(name, text)

    @property
    def trial_dir(self) -> str:
        """Path of the attempt's scratch folder, which is removed at the end."""
        return str(self._attempt.directory)

    @property
    def trial_resources(self) -> PlacementGroupFactory:
        """Resources of one trial."""
        resources = self._attempt.job.resources
        amounts = {"CPU": resources.cpu, "GPU": resources.gpu, **resources.custom}
        bundle = {name: amount for name, amount in amounts.items() if amount}
        return PlacementGroupFactory([bundle] * resources.workers)


def numbers_of(metrics: Mapping[str, Any], objectives: tuple[str, ...]) -> dict[str, float]:
    """Return the numbers of a Ray Tune result. The entries of `objectives` must be numbers."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = as_number(name, value)
        except BadReport:
            if name in objectives:
                raise
    return numbers
