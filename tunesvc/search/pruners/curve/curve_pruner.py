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
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import LRUDict, Reason
from tunesvc.search.pruners.audit import AUDIT, is_audited
from tunesvc.search.pruners.curve.curve_model import (
    CurveForecast,
    CurveModel,
    models_of,
)
from tunesvc.search.pruners.curve.resume_candidates import (
    candidates_of,
    chance_of,
    forecast_details,
    format_forecast,
    percent,
    resume_candidates_of,
)
from tunesvc.search.study_lock import locked
from tunesvc.search.tracking.finished import resumed_in
from tunesvc.search.tracking.objectives import (
    cut,
    names_of,
    orientations_of,
    point_at,
    points_of,
)
from tunesvc.search.tracking.pausing import RESUMED, Alternative
from tunesvc.search.tracking.study_history import StudyHistory, history_of

CHANCE = 0.05
"""Of being the best, below which a trial is stopped, unless a study says otherwise."""
RECENT = 20
"""New trials that tell what the next one promises."""
_SHOWN = 5
"""Trials that a reason names."""


class CurvePruner(BasePruner):
    """Forecasts final values from curves and parameters of all trials (`CurveModel`), and stops what will not be best.

    Of the trials that it stops, at most a share of `chance` would have become the new best, as far as the forecasts
    are calibrated; `tunesvc.search.pruners.audit.false_prunes` measures that share on the trials of a study.

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
        startup: int = 3,
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
        self._reasons: LRUDict[Reason] = LRUDict()

    @property
    def pauses(self) -> bool:
        """Whether what it stops is paused."""
        return self._resume

    @locked
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, as Optuna asks. It is judged at its first report at or after each level."""
        points = points_of(trial, len(study.directions))
        step = max(points, default=None)
        if step is None or step < self._min:
            return False
        models = models_of(study)
        level = max(
            (level for model in models for level in model.levels if level <= step),
            default=None,
        )
        if level is None or any(level <= other < step for other in points):
            return False
        trials, orientations = study.get_trials(deepcopy=False), orientations_of(study)
        history = history_of(study, trials)
        forecasts = [model.forecast(trial) for model in models]
        known = [forecast for forecast in forecasts if forecast is not None]
        if len(known) < len(orientations) or history.comparable < self._startup:
            return False
        front = history.front
        judged = _Judged(
            step,
            points[step],
            known,
            front,
            history.comparable,
            chance_of(known, front),
        )
        is_poor = judged.chance < self._allowed(trial) and not _leads(
            trial,
            step,
            trials,
            orientations,
        )
        audited = AUDIT in trial.system_attrs or (is_poor and is_audited(self._seed, trial.number, self._audit))
        if audited and AUDIT not in trial.system_attrs:
            study._storage.set_trial_system_attr(trial._trial_id, AUDIT, judged.kept())
        reason = judged.reason(names_of(study), self._chance, is_poor, audited)
        self._reasons[trial.number] = reason
        return is_poor and not audited

    @locked
    def promotion(
        self,
        study: Study,
        paused: Mapping[int, int],
        alternative: Alternative,
    ) -> int | None:
        """The paused trial with the most to gain per step that it still needs, if that is more than a new trial gains.

        While other trials could be asked, that is all that counts, until the paused ones together have less than the
        allowed chance to hold the best. When the trials of the budget are spent, only one goes on whose own chance is
        not below it (any more): nobody pays for more training than was asked for.
        """
        trials, models = study.get_trials(deepcopy=False), models_of(study)
        history = history_of(study, trials)
        front = history.front
        if not front:
            return None
        candidates = candidates_of(study)
        candidates.update(trials, paused, models, front, resumed_in(study))
        together = candidates.together
        is_open = alternative is not Alternative.NOTHING and together >= self._chance
        best = candidates.best(0.0 if is_open else self._chance)
        length = max(model.length for model in models)
        of_new = _gain_of_new(trials, models, front, history) / length if alternative is Alternative.NEW else 0.0
        if best is None or best.gain_per_step <= of_new:
            return None
        number, gain = best.trial.number, best.gain_per_step
        numbers = {
            "together": together,
            "gain": gain,
            "gain_of_new": of_new,
            "allowed": self._chance,
        }
        self._reasons[number] = best.reason(names_of(study), numbers)
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
    forecasts: Sequence[CurveForecast]
    front: Sequence[FrozenTrial]
    """The finished trials that no other dominates; of one objective the best."""
    finished: int
    chance: float
    """To end better than the best, or outside of what the front dominates."""

    def kept(self) -> dict[str, Any]:
        """What the audit needs to know in the end."""
        bar = {"front": [t.values for t in self.front]} if len(self.values) > 1 else {"best": self.front[0].values[0]}
        return {"step": self.step, "chance": self.chance, **bar}

    def reason(
        self,
        names: Sequence[str],
        allowed: float,
        is_poor: bool,
        audited: bool,
    ) -> Reason:
        """In words and numbers."""
        several = len(self.values) > 1
        told = [format_forecast(f, name if several else "") for f, name in zip(self.forecasts, names, strict=True)]
        aim = self._beside_front() if several else self._beside_best()
        text = f"forecast after step {self.step}: {' and '.join(told)}; chance to {aim}: {percent(self.chance)}"
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
                name: {"value": value, **forecast_details(f)}
                for name, value, f in zip(
                    names,
                    self.values,
                    self.forecasts,
                    strict=True,
                )
            }
            details["front"] = len(self.front)
            details["comparators"] = [{"number": t.number, "values": t.values} for t in self._dominating()[:_SHOWN]]
        else:
            details |= {
                "value": self.values[0],
                "best": self.front[0].values[0],
                **forecast_details(self.forecasts[0]),
            }
        return Reason(
            text + ("; it may finish all the same, to audit the pruner" if audited else ""),
            details,
        )

    def _beside_best(self) -> str:
        return f"beat {self.front[0].values[0]:.4g}, the best of {self.finished} finished trials"

    def _beside_front(self) -> str:
        named = [f"{t.number} ({', '.join(f'{value:.4g}' for value in t.values)})" for t in self._dominating()]
        text = f"join the {len(self.front)} Pareto-optimal of {self.finished} finished trials"
        if named:
            more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
            text += f", of which {', '.join(named[:_SHOWN])}{more} would dominate it"
        return text

    def _dominating(self) -> list[FrozenTrial]:
        """Members of the front that are at least as good as what is forecast, in every objective."""
        return [
            t for t in self.front if all(f.scale.to(v) <= f.z for f, v in zip(self.forecasts, t.values, strict=True))
        ]


def _gain_of_new(
    trials: Sequence[FrozenTrial],
    models: Sequence[CurveModel],
    front: Sequence[FrozenTrial],
    history: StudyHistory,
) -> float:
    """What a new trial gains: the mean of what was to be expected of the latest ones after their first report.

    That is measured like a paused trial's gain, by the same models as they are now. Who repeats an earlier trial gains
    nothing. Infinite before any has reported.
    """
    recent = [trial for trial in trials[-RECENT:] if points_of(trial, len(models))]
    begun = [cut(trial, min(points_of(trial, len(models)))) for trial in recent]
    found = [one for one in resume_candidates_of(begun, models, front) if one is not None]
    gains = [0.0 if _is_repeated(one.trial, history) else one.gain for one in found]
    return sum(gains) / len(gains) if gains else math.inf


def _is_repeated(trial: FrozenTrial, history: StudyHistory) -> bool:
    return any(number < trial.number for number in history.numbers_of(trial.params))


def _leads(
    trial: FrozenTrial,
    step: int,
    trials: Sequence[FrozenTrial],
    orientations: np.ndarray,
) -> bool:
    """Whether no other trial was as good at this step: then no forecast speaks against it."""
    own = (orientations * np.array(point_at(trial, step, len(orientations)))).tolist()
    if any(map(math.isnan, own)):
        return False
    for other in trials:  # of a poor trial the first few others are better already
        point = None if other.number == trial.number else point_at(other, step, len(orientations))
        if point is not None and all(s * v <= mine for s, v, mine in zip(orientations, point, own, strict=True)):
            return False
    return True
