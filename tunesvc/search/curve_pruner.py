"""A pruner that stops a trial when the chance is small that it ends better than the best finished one, and takes it up
again when that turns out to be worth it.

With several objectives: that no finished trial is at least as good in all of them, so that it extends the Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.audit import AUDIT, is_audited
from tunesvc.search.curves import CurveModel, Forecast, models_of
from tunesvc.search.objectives import cut, names_of, point_at, points_of, signs_of
from tunesvc.search.pareto import chance_to_extend, front_of
from tunesvc.search.pausing import RESUMED, Instead
from tunesvc.search.reasons import Reason

CHANCE = 0.05
"""Of being the best, below which a trial is stopped, unless a study says otherwise."""
RECENT = 20
"""New trials that tell what the next one promises."""
_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""
_SHOWN = 5
"""Trials that a reason names."""


class CurvePruner(BasePruner):
    """Forecasts final values from curves and parameters of all trials (`CurveModel`), and stops what will not be best.

    Of the trials that it stops, at most a share of `chance` would have become the new best, as far as the forecasts
    are calibrated; `tunesvc.search.audit.false_prunes` measures that share on the trials of a study.

    What it stops is only paused, where somebody asks `promotion`, as tunesvc does and plain Optuna does not: the trial
    goes on when later ones have taught the model better. As in freeze-thaw optimisation (Swersky et al. 2014,
    https://arxiv.org/abs/1406.3896) what is worth more is run, a paused trial or a new one.

    Several objectives are forecast each by itself, and taken to be independent given curves and parameters. Optuna's
    trials report one objective only, so with plain Optuna nothing is stopped where there are several.

    Args:
        chance: a trial is stopped when the probability that it ends better than the best finished trial, or outside of
            what the Pareto front dominates, is below this.
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
        chance: float = CHANCE,
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
        points = points_of(trial, len(study.directions))
        step = max(points, default=None)
        if step is None or step < self._min:
            return False
        models = models_of(study)
        level = max((level for model in models for level in model.levels if level <= step), default=None)
        if level is None or any(level <= other < step for other in points):
            return False
        trials, signs = study.get_trials(deepcopy=False), signs_of(study)
        finished = [t for t in trials if t.state == TrialState.COMPLETE and _is_comparable(t, len(signs))]
        forecasts = [model.forecast(trial) for model in models]
        known = [forecast for forecast in forecasts if forecast is not None]
        if len(known) < len(signs) or len(finished) < self._startup:
            return False
        front = [finished[i] for i in front_of(signs * np.array([t.values for t in finished]))]
        judged = _Judged(step, points[step], known, front, len(finished), _chance(known, front))
        is_poor = judged.chance < self._allowed(trial) and not _leads(trial, step, trials, signs)
        audited = AUDIT in trial.system_attrs or (is_poor and is_audited(self._seed, trial.number, self._audit))
        if audited and AUDIT not in trial.system_attrs:
            study._storage.set_trial_system_attr(trial._trial_id, AUDIT, judged.kept())
        reason = judged.reason(names_of(study), self._chance, is_poor, audited)
        self._reasons[trial.number] = reason
        if len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]
        return is_poor and not audited

    def promotion(self, study: Study, paused: Mapping[int, int], instead: Instead) -> int | None:
        """The paused trial with the most to gain per step that it still needs, if that is more than a new trial gains.

        While other trials could be asked, that is all that counts, until the paused ones together have less than the
        allowed chance to hold the best. When the trials of the budget are spent, only one goes on whose own chance is
        not below it (any more): nobody pays for more training than was asked for.
        """
        trials, models, signs = study.get_trials(deepcopy=False), models_of(study), signs_of(study)
        finished = [t for t in trials if t.state == TrialState.COMPLETE and _is_comparable(t, len(signs))]
        if not finished:
            return None
        front = [finished[i] for i in front_of(signs * np.array([t.values for t in finished]))]
        found = _promises([trial for trial in trials if trial.number in paused], models, front)
        together = 1 - math.prod(1 - one.chance for one in found)
        is_open = instead is not Instead.NOTHING and together >= self._chance
        length = max(model.length for model in models)
        gains = {
            one.trial.number: one.gain / _steps_left(one.trial, paused[one.trial.number], length)
            for one in found
            if is_open or one.chance >= self._chance
        }
        of_new = _gain_of_new(trials, models, front) / length if instead is Instead.NEW else 0.0
        number = max(gains, key=lambda number: (gains[number], -number), default=None)
        if number is None or gains[number] <= of_new:
            return None
        chosen = next(one for one in found if one.trial.number == number)
        numbers = {"together": together, "gain": gains[number], "gain_of_new": of_new, "allowed": self._chance}
        self._reasons[number] = chosen.reason(names_of(study), numbers)
        return number

    def _allowed(self, trial: FrozenTrial) -> float:
        """The chance below which the trial is stopped. One that was taken up with less than that goes on until its
        chance has halved: else it would be stopped again at once."""
        chance = trial.system_attrs.get(RESUMED, {}).get("chance")
        return self._chance if chance is None else min(self._chance, chance / 2)

    def explain(self, number: int) -> Reason | None:
        """What the last judgement of the trial of this number rested on."""
        return self._reasons.get(number)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a verdict rests on."""

    step: int
    values: Sequence[float]
    """Reported at that step, one per objective."""
    forecasts: Sequence[Forecast]
    front: Sequence[FrozenTrial]
    """The finished trials that no other dominates; of one objective the best."""
    finished: int
    chance: float
    """To end better than the best, or outside of what the front dominates."""

    def kept(self) -> dict[str, Any]:
        """What the audit needs to know in the end."""
        bar = {"front": [t.values for t in self.front]} if len(self.values) > 1 else {"best": self.front[0].values[0]}
        return {"step": self.step, "chance": self.chance, **bar}

    def reason(self, names: Sequence[str], allowed: float, is_poor: bool, audited: bool) -> Reason:
        """In words and numbers."""
        several = len(self.values) > 1
        told = [_tell(f, name if several else "") for f, name in zip(self.forecasts, names, strict=True)]
        aim = self._beside_front() if several else self._beside_best()
        text = (
            f"forecast at step {self.step} to end at {' and '.join(told)}; chance {_percent(self.chance)} to be {aim}"
        )
        details: dict[str, Any] = {
            "step": self.step,
            "chance": self.chance,
            "allowed": allowed,
            "finished": self.finished,
            "stopped": is_poor and not audited,
            "audit": audited,
        }
        if several:
            details["metrics"] = {
                name: {"value": value, **_details(f)}
                for name, value, f in zip(names, self.values, self.forecasts, strict=True)
            }
            details["front"] = len(self.front)
            details["comparators"] = [{"number": t.number, "values": t.values} for t in self._dominating()[:_SHOWN]]
        else:
            details |= {"value": self.values[0], "best": self.front[0].values[0], **_details(self.forecasts[0])}
        return Reason(text + (", but let finish as an audit" if audited else ""), details)

    def _beside_best(self) -> str:
        return f"better than {self.front[0].values[0]:.4g}, the best of {self.finished} finished trials"

    def _beside_front(self) -> str:
        named = [f"{t.number} ({', '.join(f'{value:.4g}' for value in t.values)})" for t in self._dominating()]
        text = f"on the front, which has {len(self.front)} of {self.finished} finished trials"
        if named:
            text += f"; what is forecast is dominated by {', '.join(named[:_SHOWN])}"
            text += f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return text

    def _dominating(self) -> list[FrozenTrial]:
        """Members of the front that are at least as good as what is forecast, in every objective."""
        return [
            t for t in self.front if all(f.scale.to(v) <= f.z for f, v in zip(self.forecasts, t.values, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class _Promise:
    """What may be expected of a trial if it goes on."""

    trial: FrozenTrial
    forecasts: Sequence[Forecast]
    front: Sequence[FrozenTrial]
    chance: float

    @property
    def gain(self) -> float:
        """Expected improvement, on the scale of the forecasts; with several objectives the chance of one."""
        return self.chance if len(self.forecasts) > 1 else self.forecasts[0].expected_gain(self.front[0].values[0])

    def reason(self, names: Sequence[str], numbers: Mapping[str, float]) -> Reason:
        """In words and numbers."""
        several = len(self.forecasts) > 1
        told = [_tell(f, name if several else "") for f, name in zip(self.forecasts, names, strict=True)]
        bar = "on the front" if several else f"better than {self.front[0].values[0]:.4g}, the best so far"
        text = f"forecast from step {self.forecasts[0].step} to end at {' and '.join(told)}; chance "
        text += f"{_percent(self.chance)} to be {bar}; no other trial, old or new, has as much to gain per step"
        details: dict[str, Any] = {"step": self.forecasts[0].step, "chance": self.chance, **numbers}
        if not several:
            details |= {"best": self.front[0].values[0], **_details(self.forecasts[0])}
        return Reason(text, details)


def _promises(
    trials: Sequence[FrozenTrial], models: Sequence[CurveModel], front: Sequence[FrozenTrial]
) -> list[_Promise]:
    """Of the trials for which there is a forecast of every objective."""
    made = zip(*(model.forecasts(trials) for model in models), strict=True)
    known = [(trial, [f for f in each if f is not None]) for trial, each in zip(trials, made, strict=True)]
    return [_Promise(t, each, front, _chance(each, front)) for t, each in known if len(each) == len(models)]


def _chance(forecasts: Sequence[Forecast], front: Sequence[FrozenTrial]) -> float:
    below = [[f.chance_of_better(v) for f, v in zip(forecasts, t.values, strict=True)] for t in front]
    return chance_to_extend(np.array(below))


def _gain_of_new(trials: Sequence[FrozenTrial], models: Sequence[CurveModel], front: Sequence[FrozenTrial]) -> float:
    """What a new trial gains: the mean of what was to be expected of the latest ones after their first report.

    That is measured like a paused trial's gain, by the same models as they are now. Who repeats an earlier trial gains
    nothing. Infinite before any has reported.
    """
    recent = [trial for trial in trials[-RECENT:] if points_of(trial, len(models))]
    begun = [cut(trial, min(points_of(trial, len(models)))) for trial in recent]
    gains = [0.0 if _is_repeated(one.trial, trials) else one.gain for one in _promises(begun, models, front)]
    return sum(gains) / len(gains) if gains else math.inf


def _is_repeated(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    return any(other.number < trial.number and other.params == trial.params for other in trials)


def _steps_left(trial: FrozenTrial, after_step: int, length: int) -> int:
    """How many reports the trial would still make, those included that its checkpoint is behind."""
    return max(1, length - sum(step <= after_step for step in trial.intermediate_values))


def _tell(forecast: Forecast, name: str) -> str:
    low, high = forecast.interval(0.9)
    return f"{name} {forecast.value:.4g} (90 %: {low:.4g} to {high:.4g})".lstrip()


def _details(forecast: Forecast) -> dict[str, float]:
    low, high = forecast.interval(0.9)
    return {"predicted": forecast.value, "deviation": forecast.deviation, "low": low, "high": high}


def _is_comparable(trial: FrozenTrial, objectives: int) -> bool:
    """Whether it is a result to be measured against."""
    values = trial.values or ()
    is_feasible = all(excess <= 0 for excess in trial.constraints.values())
    return len(values) == objectives and all(map(math.isfinite, values)) and is_feasible


def _leads(trial: FrozenTrial, step: int, trials: Sequence[FrozenTrial], signs: np.ndarray) -> bool:
    """Whether no other trial was as good at this step: then no forecast speaks against it."""
    own = (signs * np.array(point_at(trial, step, len(signs)))).tolist()
    if any(map(math.isnan, own)):
        return False
    for other in trials:  # of a poor trial the first few others are better already
        point = None if other.number == trial.number else point_at(other, step, len(signs))
        if point is not None and all(s * v <= mine for s, v, mine in zip(signs, point, own, strict=True)):
            return False
    return True


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
