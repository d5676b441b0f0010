"""Lightning: a callback for `Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from tunesvc.errors import Pruned
from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class LightningReporter(Callback):
    """Reports a logged metric after each epoch in which validation runs, if there is any.

    To continue interrupted trials, save checkpoints and hand the last one over::

        reporter = LightningReporter(trial, "val_loss", checkpoint_every=1)
        trainer = Trainer(max_epochs=20, callbacks=[reporter])
        trainer.fit(model, data, ckpt_path=reporter.restored)

    A pruned trial leaves `fit` by the exception `Pruned`, as Lightning ends for any exception: it
    calls `on_exception` and closes loggers and devices. Of several processes the first one reports,
    and all of them stop.
    """

    def __init__(self, trial: Trial, metric: Metric = None, checkpoint_every: int = 0) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: the name with which the study's first metric is logged; or a mapping from names
                of metrics to those; None for the only one.
            checkpoint_every: epochs from one checkpoint to the next; 0 saves none.
        """
        self._reporter = StepReporter(trial, metric, checkpoint_every)
        self._trial = trial
        self._is_validated = False
        """True if validation has run in this epoch."""

    @property
    def restored(self) -> Path | None:
        """The last checkpoint of an earlier attempt, for `ckpt_path`."""
        return self._reporter.restored

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that the metrics of validation are new; a check before training does not count."""
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report an epoch."""
        if trainer.enable_validation and not self._is_validated:
            return
        self._is_validated = False
        step, self._reporter.last_step = trainer.current_epoch + 1, trainer.max_epochs
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stops = _first_process(trainer, lambda: self._reporter.report_selected(step, values))
        if self._reporter.is_due(step) or (stops and self._reporter.can_save(step)):
            path = trainer.strategy.broadcast(self._trial.directory / "state.ckpt")
            trainer.save_checkpoint(path)
            stops |= _first_process(trainer, lambda: self._trial.checkpoint(path, step))
        if stops:
            raise Pruned(f"trial {self._trial.number} was asked to stop after epoch {step}")


def _first_process(trainer: Any, act: Callable[[], object]) -> bool:
    """Act in the first process; return in all of them whether the trial has to stop."""
    stops = False
    if trainer.is_global_zero:
        try:
            act()
        except Pruned:
            stops = True
    return bool(trainer.strategy.broadcast(stops))
