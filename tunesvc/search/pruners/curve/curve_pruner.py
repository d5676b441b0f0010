"""A pruner that stops a trial with a small chance to end better than the best finished one.

It resumes the trial when that turns out to be worth it. With several objectives the chance is that
no finished trial dominates the trial, so that it extends the Pareto front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.pruners.audit import check_options, runs_on
from tunesvc.search.pruners.curve.forecast_verdict import ForecastVerdict, chance_of
from tunesvc.search.pruners.curve.forecasts import ForecastModel
from tunesvc.search.pruners.curve.resume_candidates import candidates_of, resume_candidates_of
from tunesvc.search.pruners.curve.study_forecasts import models_of
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
"""Default chance of being the best below which a trial is stopped."""
RECENT = 20
"""Latest new trials that the gain of the next one is estimated from."""


class CurvePruner(BasePruner):
    """Forecasts final values by curves and parameters (`CurveModel`), and stops unpromising trials.

    Of the stopped trials at most a share of `chance` would have become the new best, if forecasts
    are calibrated. `tunesvc.search.pruners.audit.false_prunes` measures that share.

    Where `promotion` is called, as by tunesvc but not by plain Optuna, stopped trials are only
    paused. They resume when later trials have improved the model. As in freeze-thaw optimisation
    (Swersky et al. 2014, https://arxiv.org/abs/1406.3896), a paused trial or a new one runs,
    whichever is worth more.

    Several objectives are forecast separately, and assumed to be independent given curves and
    parameters. Optuna's trials report one objective only, so with plain Optuna nothing is stopped
    if there are several.

    Args:
        chance: a trial is stopped if the probability that it ends better than the best finished
            trial, or outside of what the Pareto front dominates, is below this.
        startup: number of finished trials before one may be stopped.
        min: no trial is stopped before this step.
        audit: share of the trials to be stopped that finish anyway, to measure the pruner's errors.
        seed: decides which trials those are.
        resume: whether stopped trials may resume.

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
        check_options(chance, startup, audit)
        self._chance = chance
        self._startup = startup
        self._min = min
        self._audit = audit
        self._seed = seed
        self._resume = resume
        self._reasons: RecentEntries[Reason] = RecentEntries()

    @property
    def pauses(self) -> bool:
        """True if trials are paused instead of stopped."""
        return self._resume

    @locked
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return True if the trial should stop.

        Checked at its first report at or after each level.
        """
        points = points_of(trial, len(study.directions))
        step = max(points, default=None)
        if step is None or step < self._min:
            return False
        models = models_of(study)
        levels = [level for model in models for level in model.levels if level <= step]
        level = max(levels, default=None)
        if level is None or any(level <= other < step for other in points):
            return False
        trials = study.get_trials(deepcopy=False)
        orientations = orientations_of(study)
        history = history_of(study, trials)
        forecasts = [model.forecast(trial) for model in models]
        known = [forecast for forecast in forecasts if forecast is not None]
        if len(known) < len(orientations) or history.comparable < self._startup:
            return False
        front = history.front
        judged = ForecastVerdict(
            step,
            points[step],
            known,
            front,
            history.comparable,
            chance_of(known, front),
        )
        is_poor = judged.chance < self._allowed(trial)
        is_poor = is_poor and not _leads(trial, step, trials, orientations)
        audited = runs_on(study, trial, judged.audit, is_poor, self._audit, self._seed)
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
        """Return the paused trial that gains most per step, if a new one gains less.

        While new trials are possible, nothing else counts, until the paused ones together have less
        than the allowed chance to hold the best. Once the budget of trials is spent, a trial
        resumes only if its own chance is not below the allowed one: training beyond the budget has
        to be worth it.
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
        of_new = 0.0
        if alternative is Alternative.NEW:
            of_new = _gain_of_new(trials, models, front, history) / length
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
        """Return the chance below which the trial is stopped.

        A trial promoted with less continues until its chance has halved; it would be stopped again
        at once otherwise.
        """
        chance = trial.system_attrs.get(RESUMED, {}).get("chance")
        return self._chance if chance is None else min(self._chance, chance / 2)

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last decision on this trial."""
        return self._reasons.get(number)


def _gain_of_new(
    trials: Sequence[FrozenTrial],
    models: Sequence[ForecastModel],
    front: Sequence[FrozenTrial],
    history: StudyHistory,
) -> float:
    """Estimate the gain of a new trial: the mean gain of the latest ones after their first report.

    It is computed like a paused trial's gain, by the current models. A repetition of an earlier
    trial gains nothing. Infinite before any trial has reported.
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
    """Return True if no other trial was as good at this step: no forecast outweighs that."""
    own = (orientations * np.array(point_at(trial, step, len(orientations)))).tolist()
    if any(map(math.isnan, own)):
        return False
    for other in trials:  # for a poor trial, one of the first is better already
        if other.number == trial.number:
            continue
        point = point_at(other, step, len(orientations))
        if point is None:
            continue
        losses = zip(orientations * point, own, strict=True)
        if all(theirs <= mine for theirs, mine in losses):
            return False
    return True
