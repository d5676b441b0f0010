"""Forecasts of final values, with their uncertainty, from the partial curves of a study's trials.

Knows Optuna's trials only. The curve pruner uses it, and samplers that learn from unfinished
trials.

At a few levels (steps in geometric progression) a Gaussian process maps the features of a trial at
that step (smoothed last value, best value, recent change, and its parameters) to the rest: final
value minus the present one. Finished trials contribute their final values. Pruned and running ones
that went beyond the level contribute their own forecast from the level they reached, with its
variance as noise. A trial is stopped by its curve and parameters, which are the inputs;
conditioning on them makes that selection ignorable (Rubin 1976, "Inference and missing data").
Values that pruned trials never reached are filled in from the last level to the first, as for
monotone missing data.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
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
from tunesvc.search.tracking.scale import WORST, ValueScale
from tunesvc.search.tracking.transferred import split
from tunesvc.space.directions import goal_of
from tunesvc.spec.goals import orient

FINISHED_MIN = 3
"""Fewest finished trials for a forecast; with fewer, nothing tells how far a curve still goes."""
TAUGHT_MAX = 160
"""Most trials that a level is fitted to: finished ones first, then the newest."""

_DENSITY = math.gamma((DOF + 1) / 2) / (math.sqrt(DOF * math.pi) * math.gamma(DOF / 2))
"""Density of the standard Student t at 0."""
_FARTHEST = 2 * WORST
"""End of the scale for curves: they start far from where they end,
and diverged ones lie farther."""
_MARGIN = 0.25
"""Curves that are worse than every finished one by no more than this, on the scale,
count as similar."""
_AT_ONCE = 1_024
"""Trials that are forecast together: more take memory, and no less time."""
_CHANGE = 0.7
_DOUBT = 3.0
"""Factor on the variance of forecasts in the fit: they rest on the same few finished trials, so
their errors are correlated."""
"""Prior deviation, on the scale, of the change from a level to the end."""


@dataclass(frozen=True, slots=True)
class CurveForecast:
    """Forecast of a final value: a Student t on the study's scale, on which small is good."""

    step: int
    """Last level that the trial has reached, from which it was forecast."""
    z: float
    """Centre, on the scale."""
    deviation_z: float
    """Scale of a Student t with `regression.DOF` degrees of freedom."""
    reached_z: float
    """The trial's best value if a trial's best value counts, else infinity."""
    scale: ValueScale
    worst: float = math.inf
    """Greatest loss of any curve: no value beyond it is reported."""

    @property
    def value(self) -> float:
        """Median, in the objective's units."""
        return float(self._back(np.array(self.z)))

    @property
    def deviation(self) -> float:
        """Half the width of the interval of one deviation around it, in the objective's units."""
        ends = self._back(np.array([self.z - self.deviation_z, self.z + self.deviation_z]))
        return float(abs(ends[1] - ends[0]) / 2)

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the central interval with this probability, in the objective's units."""
        reach = self.deviation_z * float(stdtrit(DOF, 0.5 + share / 2))
        ends = self._back(np.minimum([self.z - reach, self.z + reach], self.reached_z))
        return float(ends.min()), float(ends.max())

    def chance_of_better(self, value: float) -> float:
        """Return the probability that the final value is better than this one."""
        bar = float(self.scale.to(value))
        if self.reached_z < bar:
            return 1.0
        return float(stdtr(DOF, (bar - self.z) / self.deviation_z))

    def expected_gain(self, value: float) -> float:
        """Return the expected improvement over this value, on the scale; worse counts as none."""
        bar = float(self.scale.to(value))
        below = min(bar, self.reached_z)
        u = (below - self.z) / self.deviation_z
        density = _DENSITY * (1 + u * u / DOF) ** (-(DOF + 1) / 2)
        gain = self.deviation_z * (u * float(stdtr(DOF, u)) + (DOF + u * u) / (DOF - 1) * density)
        return float(max(0.0, gain) + bar - below)

    @property
    def stage(self) -> str:
        """Last observed step, as text."""
        return f"step {self.step}"

    def is_no_better_than(self, value: float) -> bool:
        """Return True if the median is not better than this value."""
        return float(self.scale.to(value)) <= self.z

    def on(self, scale: ValueScale) -> tuple[float, float]:
        """Return mean and variance on a scale."""
        excess = DOF / (DOF - 2)
        if scale == self.scale:
            return min(self.z, WORST), self.deviation_z**2 * excess
        ends = scale.to(np.array([self.value - self.deviation, self.value + self.deviation]))
        return float(scale.to(self.value)), float((ends[1] - ends[0]) / 2) ** 2 * excess

    def _back(self, z: np.ndarray) -> np.ndarray:
        """Return values in the objective's units, no worse than the worst that was observed."""
        out: np.ndarray = self.scale.orientation * np.minimum(
            self.scale.orientation * self.scale.back(z),
            self.worst,
        )
        return out


_RELEARNED = 1.02
"""Growth of the number of finished trials after which the model is fitted again."""


class CurveModel:
    """Forecasts final values from partial curves. Caches its fits, so use one for each study."""

    def __init__(
        self,
        direction: StudyDirection,
        objective: int | None = None,
    ) -> None:
        """`objective`: index of one of several; trials are taken from its point of view."""
        self._direction = direction
        self._objective = objective
        self._orientation = orient(goal_of(direction))
        self.invalidate()
        self.forget()

    def forget(self) -> None:
        """Drop what was learned, as at a restart."""
        self._learned_from = (0, 0)
        self._chosen_at = 0
        self._kernels: dict[int, Kernel] = {}
        self._learned: _Learned | None = None
        self._state = object()
        self._expected: dict[tuple[int, int], float] = {}

    def invalidate(self) -> None:
        """Read all trials again, because their distributions have changed."""
        self._dataset = CurveDataset(
            self._orientation,
            self._objective,
            TAUGHT_MAX,
            FINISHED_MIN,
        )

    @property
    def levels(self) -> Sequence[int]:
        """Steps at which forecasts change; empty before there is a forecast."""
        return self._learned.levels if self._learned else ()

    @property
    def length(self) -> int:
        """Number of reports of the longest finished curve; 0 before there is a forecast."""
        return self._learned.length if self._learned else 0

    @property
    def state(self) -> object:
        """Identity of the fits: the same object as long as forecasts stay the same."""
        return self._state

    def update(
        self,
        trials: Sequence[FrozenTrial],
        resumed: Sequence[int] | None = None,
    ) -> None:
        """Learn from all trials of a study, unless none or few have ended since the last fit.

        Args:
            trials: of the study, transferred ones first.
            resumed: trials that were paused and are no longer; see `finished.resumed_in`.
        """
        transferred, own = split(trials)
        self._dataset.update(own, resumed)
        ended = self._dataset.ended + sum(trial.state.is_finished() for trial in transferred)
        finished = self._dataset.finished
        finished_before, ended_before = self._learned_from
        has_few_finished = finished < _RELEARNED * finished_before + 1
        if has_few_finished and ended < 1.1 * ended_before + 1:
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
        """Forecast a trial; None before its first report, or while too few have finished."""
        return self.forecasts([trial])[0]

    def forecasts(
        self,
        trials: Sequence[FrozenTrial],
    ) -> list[CurveForecast | None]:
        """Forecast trials from their curves as given here, which may be cut."""
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
        """Forecast final values of pruned trials by number, in the objective's units; cached."""
        learned = self._learned
        if learned is None:
            return {}
        pruned = [(trial, _version(trial)) for trial in trials if trial.state == TrialState.PRUNED]
        new = [(trial, version) for trial, version in pruned if version not in self._expected]
        for at in range(0, len(new), _AT_ONCE):
            chunk = new[at : at + _AT_ONCE]
            level, _, z, _ = self._predict(
                learned,
                [trial for trial, _ in chunk],
            )
            values = np.where(
                level >= 0,
                learned.scale.back(z),
                np.nan,
            ).tolist()
            versions = [version for _, version in chunk]
            self._expected.update(zip(versions, values, strict=True))
        known = ((trial.number, self._expected[version]) for trial, version in pruned)
        return {number: value for number, value in known if not math.isnan(value)}

    def _predict(
        self,
        learned: _Learned,
        trials: Sequence[FrozenTrial],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return each trial's level (index, -1 for none), its summary there, and its forecast.

        The forecast is a centre and a deviation; if the best value counts, the centre is no worse
        than the trial's best one.
        """
        points = [CurveFeatures(self._dataset.viewed(trial), self._orientation) for trial in trials]
        level = np.array([learned.level_of(p.steps) for p in points])
        summaries = [p.summary(learned.levels[k]) for p, k in zip(points, level, strict=True)]
        known = learned.scaled(np.array(summaries))
        z, deviation = learned.predict(
            known,
            learned.encoder.encode(trials),
            level,
        )
        if learned.is_best_taken:
            z = np.fmin(z, known[:, 1])
        return level, known, z, deviation

    def _worst_of(self, trial: FrozenTrial) -> float:
        """Return the greatest finite loss of a curve."""
        losses = CurveFeatures(
            self._dataset.viewed(trial),
            self._orientation,
        ).losses
        return max(
            (loss for loss in losses if math.isfinite(loss)),
            default=-math.inf,
        )

    def _learn(self, trials: Sequence[FrozenTrial]) -> None:
        training = self._dataset.learn(trials)
        if training is None or self._learned is None or training.levels != self._learned.levels:
            self._kernels = {}
        self._state, self._expected = object(), {}
        self._learned = None
        if training is not None:
            self._learned = _Learned(training, self._direction, self._kernels)


class _Learned:
    """Regressions of all levels, fitted from the last level to the first."""

    def __init__(
        self,
        training: TrainingSet,
        direction: StudyDirection,
        kernels: dict[int, Kernel],
    ) -> None:
        self.levels = levels = training.levels
        self.length = training.length
        self.scale = ValueScale.of(training.finals, direction)
        self.is_best_taken = training.is_best_taken
        self.encoder = training.encoder
        self._fits: dict[int, Regression] = {}
        self._support: dict[int, np.ndarray] = {}
        """Badness of the summaries of finished curves by level; see `_support`."""
        final_losses = self.scale.orientation * training.finals
        losses = np.concatenate([training.summaries.ravel(), final_losses])
        self.worst = float(losses[np.isfinite(losses)].max(initial=-math.inf))
        known = self.scaled(training.summaries)
        params = self.encoder.encode(training.trials)
        finished = training.finished
        finals = self.scale.of_losses(
            self.scale.orientation * training.final,
            _FARTHEST,
        )
        target = np.where(finished, finals, np.nan)
        variance = np.zeros(len(training.trials))
        reached = reached_by(known)
        for k in reversed(range(len(levels))):
            rows = np.flatnonzero(is_there(known)[:, k] & ~np.isnan(target))
            rows = rows[np.lexsort((-rows, ~finished[rows]))][:TAUGHT_MAX]
            if finished[rows].sum() >= FINISHED_MIN:
                self._support[k] = _support(known[rows[finished[rows]], k])
                inputs = self._inputs(known[rows, k], params[rows], k)
                still = target[rows] - self._present(known[rows, k])
                fit = Regression(
                    inputs,
                    still,
                    variance[rows],
                    _CHANGE,
                    kernels.get(k),
                )
                self._fits[k], kernels[k] = fit, fit.kernel
            stopped = np.flatnonzero((reached == k) & np.isnan(target))
            if len(stopped):
                forecast = self._impute(known[stopped], params[stopped], k)
                target[stopped], variance[stopped] = forecast

    def _impute(
        self,
        known: np.ndarray,
        params: np.ndarray,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forecast trials that stopped at level k: values and variances for earlier levels."""
        last_fit = max((j for j in self._fits if j <= k), default=-1)
        level = np.full(len(known), last_fit)
        z, deviation = self.predict(known[:, last_fit], params, level)
        variance = _DOUBT * deviation**2 * DOF / (DOF - 2)
        return np.where(level >= 0, z, np.nan), variance

    def scaled(self, losses: np.ndarray) -> np.ndarray:
        """Scale summaries; NaN marks levels that were not reached, and stays."""
        return np.where(
            np.isnan(losses),
            np.nan,
            self.scale.of_losses(losses, _FARTHEST),
        )

    def level_of(self, steps: Sequence[int]) -> int:
        """Return the last level with a fit that a trial has reached, by index; -1 for none."""
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
        """Forecast trials from their summaries at a level: centre and deviation.

        Arbitrary at level -1.
        """
        z, deviation = np.zeros(len(known)), np.ones(len(known))
        for k in set(level.tolist()) - {-1}:
            rows = np.flatnonzero(level == k)
            inputs = self._inputs(known[rows], params[rows], k)
            still, deviation[rows] = self._fits[k].predict(inputs)
            z[rows] = self._present(known[rows]) + still
        return z.clip(max=_FARTHEST), deviation

    def _present(self, known: np.ndarray) -> np.ndarray:
        return known[:, 1] if self.is_best_taken else known[:, 0]

    def _inputs(
        self,
        known: np.ndarray,
        params: np.ndarray,
        level: int,
    ) -> np.ndarray:
        """Return the regression's inputs at a level.

        A curve that is worse there than all finished ones is treated like the worst of them, and
        its excess is assumed to stay: no data tells whether such a curve recovers.
        """
        last, best, before = np.minimum(known, self._support[level]).T
        return np.column_stack([last, last - best, last - before, params])


def _support(finished: np.ndarray) -> np.ndarray:
    """Return the range within which finished curves tell about others at a level; shape (3,)."""
    return np.asarray(finished.max(axis=0) + _MARGIN)


def _version(trial: FrozenTrial) -> tuple[int, int]:
    """Return number and length of the curve: a trial that was paused may have more points."""
    return trial.number, len(trial.intermediate_values)
