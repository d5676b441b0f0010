"""Ray Tune's session for a function written for it, outside of Ray Tune.

`ray.tune.report`, `get_checkpoint` and `get_context` all look up one session object in this process
(`ray.train._internal.session`). Ours stands in its place while the function runs, so they work however they were
imported. Ray's own session would block every report until its controller has fetched it, and wants a Ray storage.
Imports Ray Tune.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.train._internal import session as ray_session
from ray.tune import Checkpoint, PlacementGroupFactory

from tunesvc.errors import BadReport, Pruned
from tunesvc.execute.attempt import Attempt
from tunesvc.execute.checkpoints import step_of
from tunesvc.objective import as_number


@contextmanager
def tune_session(attempt: Attempt) -> Iterator[None]:
    """Let `ray.tune`'s functions speak for this attempt. One at a time per process."""
    ray_session._session = TuneSession(attempt)  # type: ignore[assignment]  # it has what ray.tune asks for
    try:
        yield
    finally:
        ray_session._session = None


class TuneSession:
    """What `ray.tune` asks of its session."""

    world_rank = None
    """None is how Ray tells a Tune function from a Train worker."""
    metadata: Mapping[str, Any] = {}

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        restored = attempt.trial().restored()
        self.iteration = max(step_of(restored), 0)
        """Reports so far: Ray's `training_iteration`, which counts from 1 and goes on after a checkpoint."""
        self.loaded_checkpoint = Checkpoint.from_directory(str(restored)) if restored else None
        self.experiment_name = attempt.job.study
        self.run_id = attempt.job.study
        self.trial_id = str(attempt.launch.attempt)
        self.trial_name = f"{attempt.job.study}_{attempt.launch.trial_number}"

    def report(self, metrics: Mapping[str, Any], checkpoint: Any = None) -> None:
        """One training iteration: metrics, and a checkpoint if there is one.

        Raises:
            Pruned: the trial has been asked to stop.
            BadReport: the study's metric is no number. Other entries that are no numbers are left out, as
                Ray Tune lets a report bear anything.
        """
        self.iteration += 1
        numbers = numbers_of(metrics, self._attempt.job.metrics)
        if numbers:
            self._attempt.report(self.iteration, numbers)
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self._attempt.checkpoint(Path(folder), self.iteration)
        if self._attempt.stop_requested:
            raise Pruned(f"{self.trial_name} was asked to stop after iteration {self.iteration}")

    @property
    def trial_dir(self) -> str:
        """The working directory: files of a trial belong into checkpoints."""
        return os.getcwd()  # noqa: PTH109  # Ray's own returns text

    @property
    def trial_resources(self) -> PlacementGroupFactory:
        """What one trial holds."""
        asked = self._attempt.job.resources
        bundle = {"CPU": asked.cpu, "GPU": asked.gpu, **asked.custom}
        return PlacementGroupFactory([{name: n for name, n in bundle.items() if n}] * asked.workers)


def numbers_of(metrics: Mapping[str, Any], objectives: tuple[str, ...]) -> dict[str, float]:
    """The entries of a Ray Tune result that are numbers; those of `objectives` have to be."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = as_number(name, value)
        except BadReport:
            if name in objectives:
                raise
    return numbers
