"""A pruner for trials whose steps are folds or repeats: compares trials on the same folds.

Optuna's `WilcoxonPruner` tests each trial by itself, so that it cannot stop one before its fourth
fold. Here trials share what is known of the folds, see `block_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.pruners.audit import check_options, runs_on
from tunesvc.search.pruners.curve.block_model import BlockModel
from tunesvc.search.pruners.curve.forecast_verdict import ForecastVerdict
from tunesvc.search.pruners.curve.forecasts import Forecast
from tunesvc.search.pruners.curve.study_forecasts import models_of
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.objectives import names_of, orientations_of, points_of
from tunesvc.search.tracking.pareto import chance_to_extend
from tunesvc.search.tracking.study_history import history_of
from tunesvc.spec import Evaluation

CHANCE = 0.05
"""Default chance of being the best below which a trial is stopped."""
STARTUP = 5
"""Default number of finished trials before one may be stopped."""


class PairedPruner(BasePruner):
    """Stops a trial whose mean over folds will hardly beat the best trial's mean on the same folds.

    With plain Optuna, report the value of each fold, `trial.report(value, fold)`, and return the
    mean. A trial that failed on a fold, by NaN or infinity, has no chance.

    Args:
        folds: number of folds.
        repeats: instead of folds, number of seeds.
        per_trial: number of them that each trial evaluates, in turns, as `evaluation` of study.yaml
            says; all by default.
        chance: a trial is stopped if the probability that it ends better than the best finished
            trial, or outside of what the Pareto front dominates, is below this.
        startup: number of finished trials before one may be stopped.
        audit: share of the trials to be stopped that finish anyway, to measure the pruner's errors.
        seed: decides which trials those are.

    Raises:
        ValueError: a number is out of its range, or neither `folds` nor `repeats` is given.
    """

    def __init__(
        self,
        folds: int | None = None,
        *,
        repeats: int | None = None,
        per_trial: int | None = None,
        chance: float = CHANCE,
        startup: int = STARTUP,
        audit: float = 0.01,
        seed: int = 0,
    ) -> None:
        check_options(chance, startup, audit)
        self.evaluation = Evaluation(folds=folds, repeats=repeats, per_trial=per_trial)
        """Tells which folds are the steps of each trial."""
        if not self.evaluation.is_stepwise:
            raise ValueError("a trial needs two folds or more, of which it is stopped between")
        self._chance = chance
        self._startup = startup
        self._audit = audit
        self._seed = seed
        self._reasons: RecentEntries[Reason] = RecentEntries()

    @locked
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return True if the trial should stop after the folds that it has reported."""
        points = points_of(trial, len(study.directions))
        if not points or len(points) >= self.evaluation.steps:
            return False
        models = models_of(study)
        forecasts = [model.forecast(trial) for model in models]
        known = [forecast for forecast in forecasts if forecast is not None]
        history = history_of(study, study.get_trials(deepcopy=False))
        if len(known) < len(models) or history.comparable < self._startup or not history.front:
            return False
        step = max(points)
        front = history.front
        chance = _chance(models, known, trial, front, orientations_of(study))
        verdict = ForecastVerdict(step, points[step], known, front, history.comparable, chance)
        is_poor = chance < self._chance
        audited = runs_on(study, trial, verdict.audit, is_poor, self._audit, self._seed)
        reason = verdict.reason(names_of(study), self._chance, is_poor, audited)
        self._reasons[trial.number] = reason
        return is_poor and not audited

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last decision on this trial."""
        return self._reasons.get(number)


def _chance(
    models: Sequence[Any],
    forecasts: Sequence[Forecast],
    trial: FrozenTrial,
    front: Sequence[FrozenTrial],
    orientations: np.ndarray,
) -> float:
    """Return the chance to end better than the best on the same folds.

    A trial of the front that had others is moved by what these are harder or easier.
    """
    below = []
    for best in front:
        row = []
        for place, forecast in enumerate(forecasts):
            model, bar = models[place], best.values[place]
            if isinstance(model, BlockModel):
                bar += orientations[place] * (model.shift(trial) - model.shift(best))
            row.append(forecast.chance_of_better(bar))
        below.append(row)
    return chance_to_extend(np.array(below))
