"""Base of all reporters: a framework's metrics by name, and a checkpoint every few steps."""

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
        self.last_step: int | None = None
        """The step with which training ends, if it is known. It is not saved: nothing would be left
        to train, and most frameworks have no result then."""

    @property
    def saves(self) -> bool:
        """True if checkpoints are to be saved."""
        return self._every > 0

    @property
    def restored(self) -> Path | None:
        """The last checkpoint of an earlier attempt."""
        return self.trial.restored()

    def is_due(self, step: int) -> bool:
        """Return True if the state is to be saved after this step."""
        return self.can_save(step) and step % self._every == 0

    def can_save(self, step: int) -> bool:
        """Return True if the state may be saved after this step."""
        return self._every > 0 and step != self.last_step

    def report(
        self, step: int, value: object, save: Save | None = None, name: str = "state"
    ) -> None:
        """Report a step and, if it is due, save a checkpoint, which a pause also makes due.

        Args:
            step: number of steps done.
            value: of the study's first metric, or a mapping of several.
            save: writes the state; None if there is none to save.
            name: of the file or folder that it writes.

        Raises:
            Pruned: the trial has been asked to stop.
        """
        try:
            self.trial.report(step, value)
        except Pruned:
            if save is not None and self.can_save(step):
                self._checkpoint(step, save, name)
            raise
        if save is not None and self.is_due(step):
            self._checkpoint(step, save, name)

    def report_selected(
        self,
        step: int,
        values: Mapping[str, float],
        save: Save | None = None,
        name: str = "state",
    ) -> None:
        """Report the metric among a framework's values, which go by its names; see `report`.

        Raises:
            Pruned: the trial has been asked to stop.
            BadReport: the metric is not among the values.
        """
        self.report(step, select(self._metric, values), save, name)

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
        raise BadReport(f"name the metric to report with metric=...; there are {_names(values)}")
    return next(iter(values.values()))


def _value(name: str, values: Mapping[str, float]) -> float:
    if name in values:
        return values[name]
    near = suggest(name, values)
    raise BadReport(f"there is no metric {name!r} to report{near}; found: {_names(values)}")


def _names(values: Mapping[str, float]) -> str:
    return ", ".join(values) or "none (hand validation data to the training)"
