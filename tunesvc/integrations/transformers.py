"""Hugging Face's Transformers: a callback for `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tunesvc.errors import BadReport, Pruned
from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class TransformersReporter(TrainerCallback):
    """Reports a metric after each evaluation during `train`.

    Steps are epochs with `eval_strategy="epoch"`, and optimizer steps otherwise. Each checkpoint
    that the `Trainer` saves becomes one of the trial. To continue interrupted trials, hand the last
    one over::

        args = TrainingArguments(
            trial.directory, eval_strategy="epoch", save_strategy="epoch"
        )
        reporter = TransformersReporter(trial, "eval_loss")
        trainer = Trainer(model, args, ..., callbacks=[reporter])
        trainer.train(resume_from_checkpoint=reporter.restored)

    A pruned trial ends training as early stopping does, and then leaves `train` by the exception
    `Pruned`.
    """

    def __init__(self, trial: Trial, metric: Metric = "eval_loss") -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: the `Trainer`'s name of the study's first metric; or a mapping from names of
                metrics to those.
        """
        self._reporter = StepReporter(trial, metric)
        self._is_training = False
        self._values: dict[str, float] = {}
        """Metrics of the evaluation, of which each data set has its own."""
        self._error: Pruned | BadReport | None = None

    @property
    def restored(self) -> str | None:
        """The last checkpoint of an earlier attempt, for `resume_from_checkpoint`."""
        restored = self._reporter.restored
        return None if restored is None else str(restored)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note that evaluations belong to the training."""
        self._is_training = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **others: Any
    ) -> None:
        """Report an evaluation once the metric is there."""
        if not self._is_training or not state.is_world_process_zero:
            return
        self._values |= metrics
        try:
            self._reporter.report_selected(_step(args, state), self._values)
            self._error = None
        except BadReport as error:
            self._error = error
        except Pruned as pruned:
            self._stop(pruned, control)
            control.should_save = args.save_strategy != "no"  # a paused trial continues from here

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Raise an error if the last evaluation lacked the metric."""
        self._values.clear()
        if self._error is not None:
            raise self._error

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Make the `Trainer`'s checkpoint the trial's."""
        if state.is_world_process_zero:
            saved = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            try:
                self._reporter.trial.checkpoint(saved, _step(args, state))
            except Pruned as pruned:  # of a population
                self._stop(pruned, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Raise `Pruned` if the trial has been asked to stop."""
        self._is_training = False
        if self._error is not None:
            raise self._error

    def _stop(self, pruned: Pruned, control: Any) -> None:
        self._error = pruned
        control.should_training_stop = True


def _step(args: Any, state: Any) -> int:
    """Return how many epochs or optimizer steps are done."""
    if args.eval_strategy == "epoch":
        return int(state.epoch + 1e-6)
    return int(state.global_step)
