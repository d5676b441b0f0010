"""A pruner that stops a trial when the chance is small that it ends better than the best finished one.

With several objectives: that no finished trial is at least as good in all of them, so that it extends the Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.audit import AUDIT, is_audited
from tunesvc.search.curves import Forecast, models_of
from tunesvc.search.objectives import names_of, point_at, points_of, signs_of
from tunesvc.search.pareto import chance_to_extend, front_of
from tunesvc.search.reasons import Reason

CHANCE = 0.05
"""Of being the best, below which a trial is stopped, unless a study says otherwise."""
_REASONS_MAX = 10_000
"""Trials whose last verdict is remembered."""
_SHOWN = 5
"""Trials that a reason names."""


class CurvePruner(BasePruner):
    """Forecasts final values from curves and parameters of all trials (`CurveModel`), and stops what will not be best.

    Of the trials that it stops, at most a share of `chance` would have become the new best, as far as the forecasts
    are calibrated; `tunesvc.search.audit.false_prunes` measures that share on the trials of a study.

    Several objectives are forecast each by itself, and taken to be independent given curves and parameters. Optuna's
    trials report one objective only, so with plain Optuna nothing is stopped where there are several.

    Args:
        chance: a trial is stopped when the probability that it ends better than the best finished trial, or outside of
            what the Pareto front dominates, is below this.
        startup: how many trials have to have finished before one is stopped.
        min: no trial is stopped before this step.
        audit: the share of the trials to be stopped that finishes anyway, to measure how often the pruner errs.
        seed: decides which trials those are.

    Raises:
        ValueError: a share is not between 0 and 1, or `startup` is below 1.
    """

    def __init__(
        self, chance: float = CHANCE, *, startup: int = 4, min: int = 0, audit: float = 0.01, seed: int = 0
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
        below = [[f.chance_of_better(v) for f, v in zip(known, t.values, strict=True)] for t in front]
        judged = _Judged(step, points[step], known, front, len(finished), chance_to_extend(np.array(below)))
        is_poor = judged.chance < self._chance and not _leads(trial, step, trials, signs)
        audited = AUDIT in trial.system_attrs or (is_poor and is_audited(self._seed, trial.number, self._audit))
        if audited and AUDIT not in trial.system_attrs:
            study._storage.set_trial_system_attr(trial._trial_id, AUDIT, judged.kept())
        reason = judged.reason(names_of(study), self._chance, is_poor, audited)
        self._reasons[trial.number] = reason
        if len(self._reasons) > _REASONS_MAX:
            del self._reasons[next(iter(self._reasons))]
        return is_poor and not audited

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
    own = signs * np.array(point_at(trial, step, len(signs)))
    found = (point_at(other, step, len(signs)) for other in trials if other.number != trial.number)
    others = signs * np.array([point for point in found if point is not None]).reshape(-1, len(signs))
    return not np.isnan(own).any() and not (others <= own).all(axis=1).any()


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f} %" if chance >= 0.001 else "below 0.1 %"
