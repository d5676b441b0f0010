"""Keras 3, with any of its backends: a callback for `model.fit`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras.callbacks import BackupAndRestore, Callback

from tunesvc.errors import Pruned
from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class KerasReporter(Callback):
    """Reports a metric after each epoch; put it last into `callbacks`.

    With `checkpoint_every`, an interrupted trial continues after the epoch of its last checkpoint,
    as with Keras's own `BackupAndRestore`: `model.fit` restores the weights and the optimizer, and
    skips the epochs that are done. A pruned trial ends training as early stopping does, so that
    other callbacks' `on_train_end` runs, and then raises `Pruned`.
    """

    def __init__(self, trial: Trial, metric: Metric = None, checkpoint_every: int = 0) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: Keras's name, such as `val_loss`, of the study's first metric; or a mapping from
                names of metrics to those; None for the only one.
            checkpoint_every: epochs from one checkpoint to the next; 0 saves none.
        """
        super().__init__()
        self._reporter = StepReporter(trial, metric, checkpoint_every)
        self._backup_folder = trial.directory / "backup"
        self._backup = BackupAndRestore(str(self._backup_folder))
        self._pruned: Pruned | None = None

    def set_model(self, model: Any) -> None:
        """Take the model that Keras trains."""
        super().set_model(model)
        self._backup.set_model(model)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Restore the model, its optimizer and the number of epochs that are done."""
        restored = self._reporter.restored
        if restored is not None and self._reporter.saves:
            shutil.copytree(restored, self._backup_folder)
            self._backup.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report an epoch."""

        def save(path: Path) -> None:
            self._backup.on_epoch_end(epoch)

        self._reporter.last_step = self.params["epochs"]
        try:
            self._reporter.report_selected(epoch + 1, logs or {}, save, self._backup_folder.name)
        except Pruned as pruned:
            self._pruned = pruned
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Raise `Pruned` if the trial has been asked to stop."""
        if self._pruned is not None:
            raise self._pruned
