"""A pruner that stops a trial when the chance is small that it ends better than the best finished one."""

from __future__ import annotations

import math
from typing import Any

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.audit import AUDIT, is_audited
from tunesvc.search.curves import Forecast, model_of
from tunesvc.search.reasons import Reason

_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""


class CurvePruner(BasePruner):
    """Forecasts final values from curves and parameters of all trials (`CurveModel`), and stops what will not be best.

    Of the trials that it stops, at most a share of `chance` would have become the new best, as far as the forecasts
    are calibrated; `tunesvc.search.audit.false_prunes` measures that share on the trials of a study.

    Args:
        chance: a trial is stopped when the probability that it ends better than the best finished trial is below this.
        startup: how many trials have to have finished before one is stopped.
        min: no trial is stopped before this step.
        audit: the share of the trials to be stopped that finishes anyway, to measure how often the pruner errs.
        seed: decides which trials those are.

    Raises:
        ValueError: a share is not between 0 and 1, or `startup` is below 1.
    """

    def __init__(
        self, chance: float = 0.05, *, startup: int = 4, min: int = 0, audit: float = 0.01, seed: int = 0
    ) -> None:
        for name, share in (("chance", chance), ("audit", audit)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} ({share}) is a probability: at least 0, below 1")
        if startup < 1:
            raise ValueError(f"startup ({startup}) is how many trials finish before one is stopped: at least 1")
        self._chance = chance
        self._startup = startup
        self._min = min
        self._audit = audit
        self._seed = seed
        self._reasons: dict[int, Reason] = {}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, as Optuna asks. It is judged at its first report at or after each level."""
        step = trial.last_step
        if step is None or step < self._min:
            return False
        model = model_of(study)
        level = max((level for level in model.levels if level <= step), default=None)
        if level is None or any(level <= other < step for other in trial.intermediate_values):
            return False
        trials = study.get_trials(deepcopy=False)
        finished = [t for t in trials if t.state == TrialState.COMPLETE and _is_comparable(t)]
        forecast = model.forecast(trial)
        if forecast is None or len(finished) < self._startup:
            return False
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        best = sign * min(sign * t.values[0] for t in finished)
        chance = forecast.chance_of_better(best)
        is_poor = chance < self._chance and not _leads(trial, step, trials, sign)
        audited = AUDIT in trial.system_attrs or (is_poor and is_audited(self._seed, trial.number, self._audit))
        if audited and AUDIT not in trial.system_attrs:
            kept = {"step": step, "best": best, "chance": chance}
            study._storage.set_trial_system_attr(trial._trial_id, AUDIT, kept)
        self._remember(trial, step, forecast, chance, best, len(finished), is_poor, audited)
        return is_poor and not audited

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)

    def _remember(
        self,
        trial: FrozenTrial,
        step: int,
        forecast: Forecast,
        chance: float,
        best: float,
        finished: int,
        is_poor: bool,
        audited: bool,
    ) -> None:
        low, high = forecast.interval(0.9)
        text = (
            f"forecast at step {step} to end at {forecast.value:.4g} (90 %: {low:.4g} to {high:.4g}); chance "
            f"{_percent(chance)} to be better than {best:.4g}, the best of {finished} finished trials"
        )
        if audited:
            text += ", but let finish as an audit"
        details: dict[str, Any] = {
            "step": step,
            "value": trial.intermediate_values[step],
            "predicted": forecast.value,
            "deviation": forecast.deviation,
            "low": low,
            "high": high,
            "chance": chance,
            "allowed": self._chance,
            "best": best,
            "finished": finished,
            "stopped": is_poor and not audited,
            "audit": audited,
        }
        self._reasons[trial.number] = Reason(text, details)
        if len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]


def _is_comparable(trial: FrozenTrial) -> bool:
    return len(trial.values or ()) == 1 and math.isfinite(trial.values[0])


def _leads(trial: FrozenTrial, step: int, trials: list[FrozenTrial], sign: float) -> bool:
    """Whether no other trial was better at this step: then no forecast speaks against it."""
    value = sign * trial.intermediate_values[step]
    others = (t.intermediate_values.get(step, math.nan) for t in trials if t.number != trial.number)
    return not math.isnan(value) and not any(sign * other <= value for other in others)


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
