"""What partial learning curves say about final values: a forecast with its uncertainty for every trial of a study.

Knows Optuna's trials and nothing else; used by the curve pruner and by samplers that learn from unfinished trials.

At a few levels (steps in geometric progression) a Gaussian process maps what is known of a trial at that step (smoothed
last value, best value, recent change, and its parameters) to what is still to come: final value minus the present one.
Finished trials teach with what they reached; pruned and running ones that went beyond the level teach with their own
forecast from the level they reached, and its variance as noise. As who stops is decided by curve and parameters, which
are the inputs, conditioning on them makes that selection ignorable (Rubin 1976, "Inference and missing data"); values
that pruned trials never reached are filled in from the top down, as for monotone missing data.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import stdtr, stdtrit

from tunesvc.search.pruners.curve.features import (
    CurveDataset,
    CurveFeatures,
    TrainingSet,
    is_there,
    reached_by,
)
from tunesvc.search.pruners.curve.regression import DOF, Kernel, Regression
from tunesvc.search.tracking.finished import resumed_in, split
from tunesvc.search.tracking.objectives import orient
from tunesvc.search.tracking.scale import WORST, ValueScale

FINISHED_MIN = 3
"""With fewer finished trials there is no forecast: nothing says how far a curve still goes."""
TAUGHT_MAX = 160
"""Trials that a level learns from; of more, the finished and the newest."""

_DENSITY = math.gamma((DOF + 1) / 2) / (math.sqrt(DOF * math.pi) * math.gamma(DOF / 2))
"""Of the standard Student t at 0."""
_FARTHEST = 2 * WORST
"""Where the scale ends for curves: they begin far from where they end, and what diverges lies farther still."""
_MARGIN = 0.25
"""On the scale: curves that are so little worse than any finished one are like these."""
_AT_ONCE = 1_024
"""Trials that are forecast together: more would take memory, and no less time."""
_CHANGE = 0.7
_DOUBT = 3.0
"""Forecasts teach with their variance times this: they rest on the same few finished trials, so their errors agree."""
"""How far, on the scale, curves are expected to go on from a level before any was seen to."""


@dataclass(frozen=True, slots=True)
class CurveForecast:
    """What a trial's final value is expected to be: a Student t on the study's scale, on which small is good."""

    step: int
    """From which it was forecast: the last level that the trial has reached."""
    z: float
    """The centre, on the scale."""
    deviation_z: float
    """The scale of a Student t with `regression.DOF` degrees of freedom."""
    reached_z: float
    """What the trial has for certain: its best value when a trial's best value counts, else infinity."""
    scale: ValueScale
    worst: float = math.inf
    """The greatest cost that any curve has come to: no value beyond that is shown."""

    @property
    def value(self) -> float:
        """The median, in the objective's units."""
        return float(self._back(np.array(self.z)))

    @property
    def deviation(self) -> float:
        """Half the width of what lies one deviation around it, in the objective's units."""
        ends = self._back(np.array([self.z - self.deviation_z, self.z + self.deviation_z]))
        return float(abs(ends[1] - ends[0]) / 2)

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Low and high end of the central interval that holds the final value with this probability, in its units."""
        reach = self.deviation_z * float(stdtrit(DOF, 0.5 + share / 2))
        ends = self._back(np.minimum([self.z - reach, self.z + reach], self.reached_z))
        return float(ends.min()), float(ends.max())

    def chance_of_better(self, value: float) -> float:
        """The probability that the final value is better than this one."""
        bar = float(self.scale.to(value))
        if self.reached_z < bar:
            return 1.0
        return float(stdtr(DOF, (bar - self.z) / self.deviation_z))

    def expected_gain(self, value: float) -> float:
        """By how much, on the scale, the final value is expected to be better than this one; worse is no loss."""
        bar = float(self.scale.to(value))
        below = min(bar, self.reached_z)
        u = (below - self.z) / self.deviation_z
        density = _DENSITY * (1 + u * u / DOF) ** (-(DOF + 1) / 2)
        gain = self.deviation_z * (u * float(stdtr(DOF, u)) + (DOF + u * u) / (DOF - 1) * density)
        return float(max(0.0, gain) + bar - below)

    def _back(self, z: np.ndarray) -> np.ndarray:
        """In the objective's units, no worse than the worst that was seen."""
        out: np.ndarray = self.scale.orientation * np.minimum(
            self.scale.orientation * self.scale.back(z),
            self.worst,
        )
        return out


_RELEARNED = 1.02
"""It learns again when so many times as many trials have finished: of fifty each one counts, of a thousand twenty."""


class CurveModel:
    """Forecasts final values from partial curves. Keeps its fits between calls, so use one per study."""

    def __init__(self, direction: StudyDirection, objective: int | None = None) -> None:
        """`objective`: which of several it is; trials are taken as that one sees them."""
        self._direction = direction
        self._objective = objective
        self._orientation = orient(direction)
        self.invalidate()
        self.forget()

    def forget(self) -> None:
        """Learn anew, as after a restart."""
        self._learned_from = (0, 0)
        self._chosen_at = 0
        self._kernels: dict[int, Kernel] = {}
        self._learned: _Learned | None = None
        self._state = object()
        self._expected: dict[tuple[int, int], float] = {}

    def invalidate(self) -> None:
        """Look at all trials anew: they have other distributions."""
        self._lessons = CurveDataset(
            self._orientation,
            self._objective,
            TAUGHT_MAX,
            FINISHED_MIN,
        )

    @property
    def levels(self) -> Sequence[int]:
        """The steps at which forecasts change; empty before there is one."""
        return self._learned.levels if self._learned else ()

    @property
    def length(self) -> int:
        """How many reports the longest finished curve has; 0 before there is one."""
        return self._learned.length if self._learned else 0

    @property
    def state(self) -> object:
        """The same one as long as forecasts stay as they are; another one after it was made to learn anew."""
        return self._state

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Learn from all trials of a study; costs next to nothing when none, or few pruned ones, ended meanwhile.

        Args:
            trials: of the study, those that others lend before its own.
            gone_on: which paused ones have gone on; see `finished.gone_on_in`.
        """
        transferred, own = split(trials)
        self._lessons.update(own, resumed)
        ended = self._lessons.ended + sum(trial.state.is_finished() for trial in transferred)
        finished = self._lessons.finished
        if finished < _RELEARNED * self._learned_from[0] + 1 and ended < 1.1 * self._learned_from[1] + 1:
            return
        self._learned_from = (finished, ended)
        if finished < FINISHED_MIN:
            self._learned = None
            return
        if finished + ended > 1.2 * self._chosen_at:
            self._chosen_at = finished + ended
            self._kernels = {}
        self._learn(own)

    def forecast(self, trial: FrozenTrial) -> CurveForecast | None:
        """What the trial's final value will be; None before its first report, or while too few have finished."""
        return self.forecasts([trial])[0]

    def forecasts(self, trials: Sequence[FrozenTrial]) -> list[CurveForecast | None]:
        """One per trial, from its curve as it is handed in, which may be cut."""
        learned = self._learned
        if learned is None or not trials:
            return [None] * len(trials)
        level, known, z, deviation = self._predict(learned, trials)
        worst = [max(learned.worst, self._worst_of(trial)) for trial in trials]
        out: list[CurveForecast | None] = []
        for i, k in enumerate(level):
            certain = float(known[i, 1]) if learned.is_best_taken else math.inf
            made = CurveForecast(
                learned.levels[k],
                float(z[i]),
                deviation[i],
                certain,
                learned.scale,
                worst[i],
            )
            out.append(made if k >= 0 else None)
        return out

    def expected(self, trials: Iterable[FrozenTrial]) -> dict[int, float]:
        """Forecast final values of pruned trials by number, in the objective's units; from memory where possible."""
        learned = self._learned
        if learned is None:
            return {}
        pruned = [(trial, _version(trial)) for trial in trials if trial.state == TrialState.PRUNED]
        new = [(trial, version) for trial, version in pruned if version not in self._expected]
        for some in (new[at : at + _AT_ONCE] for at in range(0, len(new), _AT_ONCE)):
            level, _, z, _ = self._predict(learned, [trial for trial, _ in some])
            values = np.where(level >= 0, learned.scale.back(z), np.nan).tolist()
            self._expected.update((version, value) for (_, version), value in zip(some, values, strict=True))
        known = ((trial.number, self._expected[version]) for trial, version in pruned)
        return {number: value for number, value in known if not math.isnan(value)}

    def _predict(
        self,
        learned: _Learned,
        trials: Sequence[FrozenTrial],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each trial the place of its level, -1 for none, its summary there, and centre and deviation of what comes
        of it; what it has for certain is no worse."""
        points = [CurveFeatures(self._lessons.seen(trial), self._orientation) for trial in trials]
        level = np.array([learned.level_of(p.steps) for p in points])
        summaries = [p.summary(learned.levels[k]) for p, k in zip(points, level, strict=True)]
        known = learned.scaled(np.array(summaries))
        z, deviation = learned.predict(known, learned.encoder.encode(trials), level)
        return (
            level,
            known,
            np.fmin(z, known[:, 1]) if learned.is_best_taken else z,
            deviation,
        )

    def _worst_of(self, trial: FrozenTrial) -> float:
        """The greatest finite cost of a curve."""
        losses = [
            loss for loss in CurveFeatures(self._lessons.seen(trial), self._orientation).losses if math.isfinite(loss)
        ]
        return max(losses, default=-math.inf)

    def _learn(self, trials: Sequence[FrozenTrial]) -> None:
        taught = self._lessons.learn(trials)
        if taught is None or self._learned is None or taught.levels != self._learned.levels:
            self._kernels = {}
        self._state, self._expected = object(), {}
        self._learned = None if taught is None else _Learned(taught, self._direction, self._kernels)


class _Learned:
    """One regression per level, fitted from the last level to the first."""

    def __init__(
        self,
        taught: TrainingSet,
        direction: StudyDirection,
        kernels: dict[int, Kernel],
    ) -> None:
        self.levels = levels = taught.levels
        self.length = taught.length
        self.scale = ValueScale.of(taught.finals, direction)
        self.is_best_taken = taught.is_best_taken
        self.encoder = taught.encoder
        self._fits: dict[int, Regression] = {}
        self._support: dict[int, np.ndarray] = {}
        """By level: how bad the summaries of finished curves are there, see `_support`."""
        losses = np.concatenate([taught.summaries.ravel(), self.scale.orientation * taught.finals])
        self.worst = float(losses[np.isfinite(losses)].max(initial=-math.inf))
        known, params, finished = (
            self.scaled(taught.summaries),
            self.encoder.encode(taught.trials),
            taught.finished,
        )
        target = np.where(
            finished,
            self.scale.of_costs(self.scale.orientation * taught.final, _FARTHEST),
            np.nan,
        )
        variance = np.zeros(len(taught.trials))
        reached = reached_by(known)
        for k in reversed(range(len(levels))):
            rows = np.flatnonzero(is_there(known)[:, k] & ~np.isnan(target))
            rows = rows[np.lexsort((-rows, ~finished[rows]))][:TAUGHT_MAX]
            if finished[rows].sum() >= FINISHED_MIN:
                self._support[k] = _support(known[rows[finished[rows]], k])
                inputs = self._inputs(known[rows, k], params[rows], k)
                still = target[rows] - self._present(known[rows, k])
                self._fits[k] = Regression(
                    inputs,
                    still,
                    variance[rows],
                    _CHANGE,
                    kernels.get(k),
                )
                kernels[k] = self._fits[k].kernel
            stopped = np.flatnonzero((reached == k) & np.isnan(target))
            if len(stopped):
                level = np.full(
                    len(stopped),
                    max((j for j in self._fits if j <= k), default=-1),
                )
                z, deviation = self.predict(
                    known[stopped, level],
                    params[stopped],
                    level,
                )
                target[stopped] = np.where(level >= 0, z, np.nan)
                variance[stopped] = _DOUBT * deviation**2 * DOF / (DOF - 2)

    def scaled(self, losses: np.ndarray) -> np.ndarray:
        """Summaries on the scale; NaN, which says that a level was not reached, stays."""
        return np.where(np.isnan(losses), np.nan, self.scale.of_costs(losses, _FARTHEST))

    def level_of(self, steps: Sequence[int]) -> int:
        """The last level with a fit that a trial has reached, by place; -1 for none."""
        reached = bisect_right(self.levels, steps[-1]) - 1 if steps else -1
        return max(
            (k for k in self._fits if k <= reached and steps[0] <= self.levels[k]),
            default=-1,
        )

    def predict(
        self,
        known: np.ndarray,
        params: np.ndarray,
        level: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centre and deviation of each trial's forecast from its summary at a level; any where that is -1."""
        z, deviation = np.zeros(len(known)), np.ones(len(known))
        for k in set(level.tolist()) - {-1}:
            rows = np.flatnonzero(level == k)
            still, deviation[rows] = self._fits[k].predict(self._inputs(known[rows], params[rows], k))
            z[rows] = self._present(known[rows]) + still
        return z.clip(max=_FARTHEST), deviation

    def _present(self, known: np.ndarray) -> np.ndarray:
        return known[:, 1] if self.is_best_taken else known[:, 0]

    def _inputs(self, known: np.ndarray, params: np.ndarray, level: int) -> np.ndarray:
        """What the regression at a level sees.

        A curve that is worse than all finished ones were there is taken for the worst of them. How much worse it is
        stays: nothing says that a curve comes back from where none has been.
        """
        last, best, before = np.minimum(known, self._support[level]).T
        return np.column_stack([last, last - best, last - before, params])


def _support(finished: np.ndarray) -> np.ndarray:
    """Up to where the summaries of finished curves at a level tell what comes of one; shape (3,)."""
    return np.asarray(finished.max(axis=0) + _MARGIN)


def models_of(study: Study) -> Sequence[CurveModel]:
    """The models that samplers and pruners of a study share, one per objective; they know its trials as of now."""
    if study not in _MODELS:
        several = enumerate(study.directions)
        _MODELS[study] = [CurveModel(d, k if len(study.directions) > 1 else None) for k, d in several]
    trials = study.get_trials(deepcopy=False)
    for model in _MODELS[study]:
        model.update(trials, resumed_in(study))
    return _MODELS[study]


def model_of(study: Study) -> CurveModel:
    """The model of a study of one objective."""
    (model,) = models_of(study)
    return model


def refit_models(study: Study) -> None:
    """Have what samplers and pruners of a study share, if they do, learn from what has ended.

    Called at every step of a study, it makes what they know follow from the course of the study: when somebody asks
    them in between leaves no trace.
    """
    if study in _MODELS:
        models_of(study)


def refit(study: Study) -> None:
    """Have what samplers and pruners of a study share learned anew, as after a restart, and at once."""
    for model in _MODELS.get(study, ()):
        model.forget()
    refit_models(study)


def reread(study: Study) -> None:
    """Have them look at all trials anew, whose distributions have changed; what they have learned they keep."""
    for model in _MODELS.get(study, ()):
        model.invalidate()


_MODELS: WeakKeyDictionary[Study, Sequence[CurveModel]] = WeakKeyDictionary()


def _version(trial: FrozenTrial) -> tuple[int, int]:
    """Number and length of the curve: one that was paused may have gone on since."""
    return trial.number, len(trial.intermediate_values)
