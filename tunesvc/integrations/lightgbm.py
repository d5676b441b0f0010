"""LightGBM: a callback for `lightgbm.train`, `lightgbm.cv` and its scikit-learn estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightgbm import Booster

from tunesvc.errors import TuneError
from tunesvc.integrations.step_reporter import Metric, StepReporter
from tunesvc.trial import Trial


class LightGBMReporter:
    """Reports a metric after each boosting round, `valid_0-l2` or by its name in `cv` (`valid-l2`).

    To continue interrupted trials, save checkpoints and hand the last one over::

        reporter = LightGBMReporter(trial, "valid_0-l2", checkpoint_every=20)
        lightgbm.train(
            params,
            data,
            reporter.rounds_left(500),
            valid_sets=[valid],
            init_model=reporter.restored,
            callbacks=[reporter],
        )
    """

    before_iteration = False
    order = 25
    """After LightGBM's own records of results, and before early stopping raises its exception."""

    def __init__(self, trial: Trial, metric: Metric = None, checkpoint_every: int = 0) -> None:
        """Report to `trial`.

        Args:
            trial: the objective's trial.
            metric: `DATA-METRIC`, the study's first metric; or a mapping from names of metrics to
                those; None for the only one.
            checkpoint_every: rounds from one checkpoint to the next; 0 saves none.
        """
        self._reporter = StepReporter(trial, metric, checkpoint_every)

    @property
    def restored(self) -> Path | None:
        """The model of an earlier attempt's last checkpoint, for `init_model`."""
        return self._reporter.restored

    def rounds_left(self, rounds: int) -> int:
        """Return how many of so many rounds are not in the restored model."""
        restored = self.restored
        done = 0 if restored is None else Booster(model_file=restored).current_iteration()
        return rounds - int(done)

    def __call__(self, env: Any) -> None:
        """Report a round."""
        is_cv = hasattr(env.model, "boosters")
        if is_cv and self._reporter.saves:
            raise TuneError("LightGBM cannot continue `cv`: leave checkpoint_every out")
        step = env.iteration + 1
        values = {f"{data}-{name}": value for data, name, value, *_ in env.evaluation_result_list}
        self._reporter.last_step = env.end_iteration
        save = None if is_cv else env.model.save_model
        self._reporter.report_selected(step, values, save, "model.txt")
