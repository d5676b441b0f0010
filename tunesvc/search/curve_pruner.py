"""A pruner that stops a trial when the chance is small that it ends better than the best finished one, and takes it up
again when that turns out to have been wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.audit import AUDIT, is_audited
from tunesvc.search.curves import CurveModel, Forecast, model_of
from tunesvc.search.pausing import RESUMED, Instead
from tunesvc.search.reasons import Reason

RECENT = 20
"""New trials that tell what the next one promises."""
_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""


class CurvePruner(BasePruner):
    """Forecasts final values from curves and parameters of all trials (`CurveModel`), and stops what will not be best.

    Of the trials that it stops, at most a share of `chance` would have become the new best, as far as the forecasts
    are calibrated; `tunesvc.search.audit.false_prunes` measures that share on the trials of a study.

    What it stops is only paused, where somebody asks `promotion`, as tunesvc does and plain Optuna does not: the trial
    goes on when later ones have taught the model better. As in freeze-thaw optimisation (Swersky et al. 2014,
    https://arxiv.org/abs/1406.3896) what is worth more is run, a paused trial or a new one.

    Args:
        chance: a trial is stopped when the probability that it ends better than the best finished trial is below this.
        startup: how many trials have to have finished before one is stopped.
        min: no trial is stopped before this step.
        audit: the share of the trials to be stopped that finishes anyway, to measure how often the pruner errs.
        seed: decides which trials those are.
        resume: whether what it stops may be taken up again.

    Raises:
        ValueError: a share is not between 0 and 1, or `startup` is below 1.
    """

    def __init__(
        self,
        chance: float = 0.05,
        *,
        startup: int = 4,
        min: int = 0,
        audit: float = 0.01,
        seed: int = 0,
        resume: bool = True,
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
        self._resume = resume
        self._reasons: dict[int, Reason] = {}

    @property
    def pauses(self) -> bool:
        """Whether what it stops is paused."""
        return self._resume

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
        sign = _sign(study)
        best = _best(finished, sign)
        chance = forecast.chance_of_better(best)
        is_poor = chance < self._allowed(trial) and not _leads(trial, step, trials, sign)
        audited = AUDIT in trial.system_attrs or (is_poor and is_audited(self._seed, trial.number, self._audit))
        if audited and AUDIT not in trial.system_attrs:
            kept = {"step": step, "best": best, "chance": chance}
            study._storage.set_trial_system_attr(trial._trial_id, AUDIT, kept)
        self._remember(trial, step, forecast, chance, best, len(finished), is_poor, audited)
        return is_poor and not audited

    def promotion(self, study: Study, paused: Mapping[int, int], instead: Instead) -> int | None:
        """The paused trial with the most to gain per step that it still needs, if that is more than a new trial gains.

        While other trials could be asked, that is all that counts, until the paused ones together have less than the
        allowed chance to hold the best. When the trials of the budget are spent, only one goes on whose own chance is
        not below it (any more): nobody pays for more training than was asked for.
        """
        trials, model, sign = study.get_trials(deepcopy=False), model_of(study), _sign(study)
        finished = [t for t in trials if t.state == TrialState.COMPLETE and _is_comparable(t)]
        waiting = [trial for trial in trials if trial.number in paused]
        told = {t.number: (t, f) for t, f in zip(waiting, model.forecasts(waiting), strict=True) if f is not None}
        if not told or not finished:
            return None
        best = _best(finished, sign)
        chances = {number: forecast.chance_of_better(best) for number, (_, forecast) in told.items()}
        together = 1 - math.prod(1 - chance for chance in chances.values())
        is_open = instead is not Instead.NOTHING and together >= self._chance
        gains = {
            number: forecast.expected_gain(best) / _steps_left(trial, paused[number], model.length)
            for number, (trial, forecast) in told.items()
            if is_open or chances[number] >= self._chance
        }
        of_new = _gain_of_new(trials, model, best) if instead is Instead.NEW else 0.0
        number = max(gains, key=lambda number: (gains[number], -number), default=None)
        if number is None or gains[number] <= of_new:
            return None
        details = {"chance": chances[number], "together": together, "gain": gains[number], "gain_of_new": of_new}
        self._remember_promotion(number, told[number][1], best, details)
        return number

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)

    def _allowed(self, trial: FrozenTrial) -> float:
        """The chance below which the trial is stopped. One that was taken up with less than that goes on until its
        chance has halved: else it would be stopped again at once."""
        chance = (trial.system_attrs.get(RESUMED) or {}).get("chance")
        return self._chance if chance is None else min(self._chance, chance / 2)

    def _remember_promotion(self, number: int, forecast: Forecast, best: float, found: Mapping[str, float]) -> None:
        text = (
            f"forecast from step {forecast.step} to end at {forecast.value:.4g}; chance {_percent(found['chance'])} to "
            f"be better than {best:.4g}, the best so far; no other trial, old or new, has as much to gain per step"
        )
        known = {"predicted": forecast.value, "deviation": forecast.deviation, "allowed": self._chance, "best": best}
        self._reasons[number] = Reason(text, {"step": forecast.step, **known, **found})

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


def _sign(study: Study) -> float:
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def _best(finished: Sequence[FrozenTrial], sign: float) -> float:
    return sign * min(sign * float(trial.values[0]) for trial in finished)


def _steps_left(trial: FrozenTrial, after_step: int, length: int) -> int:
    """How many reports the trial would still make, those included that its checkpoint is behind."""
    return max(1, length - sum(step <= after_step for step in trial.intermediate_values))


def _gain_of_new(trials: Sequence[FrozenTrial], model: CurveModel, best: float) -> float:
    """What a new trial gains per step: the mean of what was to be expected of the latest ones after their first report.

    That is measured like a paused trial's gain, by the same model as it is now. Who repeats an earlier trial gains
    nothing.
    """
    recent = [trial for trial in trials[-RECENT:] if trial.intermediate_values]
    forecasts = model.forecasts([_begun(trial) for trial in recent])
    gains = [
        0.0 if _is_repeated(trial, trials) else forecast.expected_gain(best)
        for trial, forecast in zip(recent, forecasts, strict=True)
        if forecast is not None
    ]
    return sum(gains) / len(gains) / model.length if gains else math.inf


def _begun(trial: FrozenTrial) -> FrozenTrial:
    """The trial as it was after its first report."""
    first = min(trial.intermediate_values)
    begun = copy.copy(trial)
    begun.intermediate_values = {first: trial.intermediate_values[first]}
    return begun


def _is_repeated(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    return any(other.number < trial.number and other.params == trial.params for other in trials)


def _leads(trial: FrozenTrial, step: int, trials: list[FrozenTrial], sign: float) -> bool:
    """Whether no other trial was better at this step: then no forecast speaks against it."""
    value = sign * trial.intermediate_values[step]
    others = (t.intermediate_values.get(step, math.nan) for t in trials if t.number != trial.number)
    return not math.isnan(value) and not any(sign * other <= value for other in others)


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
