"""What all reporters share: a framework's metrics by name, and a checkpoint every few steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tunesvc.errors import BadReport, Pruned
from tunesvc.trial import Trial
from tunesvc.util.suggestions import suggest

Metric = str | Mapping[str, str] | None
"""The framework's name of the study's first metric; or a mapping from names of metrics to the
framework's; None for the only one that there is."""

Save = Callable[[Path], object]
"""Writes a framework's state to a file or folder that does not exist yet."""


class StepReporter:
    """Reports the steps of a training, and saves its state after some of them."""

    def __init__(self, trial: Trial, metric: Metric = None, checkpoint_every: int = 0) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: what to report.
            checkpoint_every: steps from one checkpoint to the next; 0 saves none.
        """
        self.trial = trial
        self._metric = metric
        self._every = checkpoint_every

    def report(
        self,
        step: int,
        values: Mapping[str, float],
        save: Save | None = None,
        name: str = "state",
    ) -> None:
        """Report a step and, if it is due, save a checkpoint, which a pause also makes due.

        Args:
            step: number of steps done.
            values: the framework's metrics, by its names.
            save: writes the state; None if there is none to save.
            name: of the file or folder that it writes.

        Raises:
            Pruned: the trial has been asked to stop.
            BadReport: the metric is not among the values.
        """
        try:
            self.trial.report(step, select(self._metric, values))
        except Pruned:
            if save is not None and self._every:
                self._checkpoint(step, save, name)
            raise
        if save is not None and self._every and step % self._every == 0:
            self._checkpoint(step, save, name)

    def _checkpoint(self, step: int, save: Save, name: str) -> None:
        path = self.trial.directory / name
        save(path)
        self.trial.checkpoint(path, step)
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def select(metric: Metric, values: Mapping[str, float]) -> float | dict[str, float]:
    """Return what the trial is to report of a framework's metrics.

    Raises:
        BadReport: a name is not among them, or none was given and there are several.
    """
    if isinstance(metric, str):
        return _value(metric, values)
    if metric is not None:
        return {name: _value(source, values) for name, source in metric.items()}
    if len(values) != 1:
        found = ", ".join(values) or "none: hand the training a validation set"
        raise BadReport(f"name the metric to report with metric=...; there are {found}")
    return next(iter(values.values()))


def _value(name: str, values: Mapping[str, float]) -> float:
    if name in values:
        return values[name]
    found = ", ".join(values) or "none: hand the training a validation set"
    raise BadReport(f"there is no metric {name!r} to report{suggest(name, values)}; found: {found}")
