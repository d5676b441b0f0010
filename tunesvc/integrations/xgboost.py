"""XGBoost: a callback for `xgboost.train`, `xgboost.cv` and its scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgboost import Booster
from xgboost.callback import TrainingCallback

from tunesvc.errors import TuneError
from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class XGBoostReporter(TrainingCallback):
    """Reports a metric after each boosting round: `DATA-METRIC`, as XGBoost prints it.

    To continue interrupted trials, save checkpoints and hand the last one over::

        reporter = XGBoostReporter(trial, "valid-rmse", checkpoint_every=20)
        xgboost.train(
            params,
            data,
            reporter.rounds_left(500),
            evals=[(valid, "valid")],
            xgb_model=reporter.restored,
            callbacks=[reporter],
        )
    """

    def __init__(self, trial: Trial, metric: Metric = None, checkpoint_every: int = 0) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: `DATA-METRIC`, the study's first metric; or a mapping from names of metrics to
                those; None for the only one.
            checkpoint_every: rounds from one checkpoint to the next; 0 saves none.
        """
        super().__init__()
        self._reporter = StepReporter(trial, metric, checkpoint_every)

    @property
    def restored(self) -> Path | None:
        """The model of an earlier attempt's last checkpoint, for `xgb_model`."""
        return self._reporter.restored

    def rounds_left(self, rounds: int) -> int:
        """Return how many of so many rounds are not in the restored model."""
        self._reporter.last_step = rounds
        restored = self.restored
        return (
            rounds
            if restored is None
            else rounds - Booster(model_file=restored).num_boosted_rounds()
        )

    def after_iteration(
        self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, Any]]
    ) -> bool:
        """Report a round; XGBoost continues after it."""
        is_cv = not isinstance(model, Booster)
        if is_cv and self._reporter.saves:
            raise TuneError("XGBoost cannot continue `cv`: leave checkpoint_every out")
        step = epoch + 1 if is_cv else model.num_boosted_rounds()
        values = {
            f"{data}-{name}": results[-1][0] if is_cv else results[-1]  # of folds their mean
            for data, metrics in evals_log.items()
            for name, results in metrics.items()
        }
        save = None if is_cv else model.save_model
        self._reporter.report_selected(step, values, save, "model.ubj")
        return False
