"""CatBoost: fits a model as a trial."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class CatBoostReporter:
    """Fits a model, and reports a metric after each boosting round::

        reporter = CatBoostReporter(trial, "validation-RMSE")
        reporter.fit(model, X, y, eval_set=(X_valid, y_valid), snapshot_interval=60)

    With CatBoost's option `snapshot_interval`, in seconds, each snapshot becomes a checkpoint, and
    an interrupted trial continues from its last one. CatBoost calls callbacks on CPUs only, and
    turns their exceptions into text; therefore this class calls `fit`.
    """

    def __init__(self, trial: Trial, metric: Metric = None) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: `DATA-METRIC`, the study's first metric; or a mapping from names of metrics to
                those; None for the only one.
        """
        self._reporter = StepReporter(trial, metric)
        self._folder = trial.directory
        self._snapshot = self._folder / "snapshot.cbsnapshot"
        self._saved_ns = 0
        """Time of the last snapshot that became a checkpoint."""
        self._rounds = 0
        self._error: Exception | None = None

    def fit(self, model: Any, *args: Any, **options: Any) -> Any:
        """Call `model.fit(*args, **options)` and return the model.

        Raises:
            Pruned: the trial has been asked to stop.
        """
        if model.get_param("train_dir") is None:  # its default is one folder for all trials
            model.set_params(train_dir=str(self._folder / "catboost_info"))
        if "snapshot_interval" in options:
            self._restore()
            options |= {"save_snapshot": True, "snapshot_file": str(self._snapshot)}
        callback = SimpleNamespace(after_iteration=self._after_iteration)
        options["callbacks"] = [*options.get("callbacks", ()), callback]
        model.fit(*args, **options)
        if self._error is not None:
            self._checkpoint(self._rounds)  # CatBoost writes one when it is stopped
            raise self._error
        return model

    def _restore(self) -> None:
        if restored := self._reporter.restored:
            shutil.copy2(restored, self._snapshot)
            self._saved_ns = self._snapshot.stat().st_mtime_ns

    def _after_iteration(self, info: Any) -> bool:
        """Report a round; return False to end the training."""
        values = {
            f"{data}-{name}": results[-1]
            for data, metrics in info.metrics.items()
            for name, results in metrics.items()
        }
        self._rounds = info.iteration
        try:
            self._reporter.report_selected(self._rounds, values)
            self._checkpoint(self._rounds - 1)  # it was written before this round
        except Exception as error:  # noqa: BLE001  # `fit` raises it
            self._error = error
        return self._error is None

    def _checkpoint(self, rounds: int) -> None:
        """Save the snapshot if it is new; it contains so many rounds."""
        written_ns = self._snapshot.stat().st_mtime_ns if self._snapshot.exists() else 0
        if rounds > 0 and written_ns > self._saved_ns:
            self._saved_ns = written_ns
            self._reporter.trial.checkpoint(self._snapshot, rounds)
