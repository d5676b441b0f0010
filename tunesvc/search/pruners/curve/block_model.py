"""Forecasts of a trial's mean over folds or repeats, from the first ones. Knows Optuna's trials.

A trial's loss on a fold is its mean, plus an effect of the fold on all trials alike, plus a rest. A
trial is compared on the same folds with the better half of the finished trials, whose average gives
the effects: that halves the variance of a comparison with the best one alone. Trials that beat the
best one are like them, so that the worse half tells nothing about the rests of such a trial.

The variance of the rests is shared over trials by empirical Bayes: a scaled inverse chi-square
prior is fitted to the variances of finished trials, and a trial's own variance is shrunk to it
(Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression",
section 6). So one fold suffices for a forecast, a Student t. What is forecast is the mean over the
trial's own folds, a finite population: the factor is 1/k - 1/K after k of K of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import digamma, polygamma, stdtr, stdtrit

from tunesvc.search.tracking.finished import FinishedTrials, split
from tunesvc.search.tracking.objectives import seen_by
from tunesvc.search.tracking.scale import WORST, ValueScale
from tunesvc.space.directions import goal_of
from tunesvc.spec import Evaluation
from tunesvc.spec.goals import orient

FINISHED_MIN = 3
"""Fewest complete trials for a forecast, and in their better half."""
_DOF_MIN, _DOF_MAX = 3.0, 60.0
"""Bounds of the prior's degrees of freedom: few trials tell little about them."""
_ROUNDS = 50
"""Alternations between means and effects; one suffices if each trial has all folds."""


@dataclass(frozen=True, slots=True)
class BlockForecast:
    """Forecast of a mean over folds or repeats."""

    step: int
    observed: int
    """Number of folds so far."""
    evaluation: Evaluation
    orientation: float
    loss: float
    """Centre; infinite after a fold without a finite value."""
    loss_deviation: float
    """Scale of the Student t."""
    dof: float

    @property
    def stage(self) -> str:
        """What has been observed."""
        return f"{self.observed} of {self.evaluation.steps} {self.evaluation.noun}"

    @property
    def value(self) -> float:
        """Median, in the objective's units."""
        return self.orientation * self.loss

    @property
    def deviation(self) -> float:
        """Half the width of the interval of one deviation around it."""
        return self.loss_deviation

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the central interval with this probability, in the objective's units."""
        reach = self.loss_deviation * float(stdtrit(self.dof, 0.5 + share / 2))
        return self.value - reach, self.value + reach

    def chance_of_better(self, value: float) -> float:
        """Return the probability that the final value is better than this one."""
        if not math.isfinite(self.loss):
            return 0.0
        return float(stdtr(self.dof, self._standard(value)))

    def expected_gain(self, value: float) -> float:
        """Return the expected improvement over this value; worse counts as none."""
        if not math.isfinite(self.loss):
            return 0.0
        u, dof = self._standard(value), self.dof
        log_density = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)
        log_density -= math.log(dof * math.pi) / 2 + (dof + 1) / 2 * math.log1p(u * u / dof)
        spread = (dof + u * u) / (dof - 1) * math.exp(log_density)
        return max(0.0, self.loss_deviation * (u * float(stdtr(dof, u)) + spread))

    def is_no_better_than(self, value: float) -> bool:
        """Return True if the median is not better than this value."""
        return self.orientation * value <= self.loss

    def on(self, scale: ValueScale) -> tuple[float, float]:
        """Return mean and variance on a scale."""
        ends = scale.to(np.array([self.value - self.deviation, self.value + self.deviation]))
        variance = float((ends[1] - ends[0]) / 2) ** 2 * self.dof / (self.dof - 2)
        return min(float(scale.to(self.value)), WORST), variance

    def _standard(self, value: float) -> float:
        return (self.orientation * value - self.loss) / self.loss_deviation


class BlockModel:
    """Forecasts means over folds or repeats for one objective of a study.

    What it has learned is a function of the complete trials alone.
    """

    def __init__(
        self,
        direction: StudyDirection,
        evaluation: Evaluation,
        objective: int | None = None,
    ) -> None:
        """Learn nothing yet.

        Args:
            direction: of the objective.
            evaluation: tells which folds a trial has as its steps.
            objective: index of one of several.
        """
        self._evaluation = evaluation
        self._objective = objective
        self._orientation = orient(goal_of(direction))
        self._followed = FinishedTrials()
        self._complete: dict[int, np.ndarray] = {}
        """Losses of complete trials on their folds, by number."""
        self._learned: BlockEffects | None = None
        self._learned_from = 0
        self._state = object()

    @property
    def levels(self) -> Sequence[int]:
        """Every step: a forecast changes after each fold."""
        return range(self._evaluation.steps) if self._learned else ()

    @property
    def length(self) -> int:
        """Number of folds of a trial; 0 before there is a forecast."""
        return self._evaluation.steps if self._learned else 0

    @property
    def state(self) -> object:
        """Identity of what was learned."""
        return self._state

    @property
    def effects(self) -> BlockEffects | None:
        """What was learned; None while too few trials are complete."""
        return self._learned

    def forget(self) -> None:
        """Learn again at the next update."""
        self._learned_from = 0

    def invalidate(self) -> None:
        """Do nothing: distributions do not count."""

    def update(self, trials: Sequence[FrozenTrial], resumed: Sequence[int] | None = None) -> None:
        """Learn from the complete trials of a study, unless there are no new ones."""
        _, own = split(trials)
        reopened, finished = self._followed.update(own, resumed)
        for index in reopened:
            self._complete.pop(own[index].number, None)
        for index in finished:
            losses = self._losses(own[index])
            is_whole = len(losses) == self._evaluation.steps and np.isfinite(losses).all()
            if own[index].state == TrialState.COMPLETE and is_whole:
                self._complete[own[index].number] = losses
        if len(self._complete) != self._learned_from:
            self._learned_from = len(self._complete)
            self._state = object()
            numbers = sorted(self._complete)
            self._learned = learn_effects(
                np.array([self._evaluation.blocks_of(number) for number in numbers]),
                np.array([self._complete[number] for number in numbers]),
                self._evaluation.count,
            )

    def forecast(self, trial: FrozenTrial) -> BlockForecast | None:
        """Forecast a trial; None before its first fold, or while too few are complete."""
        losses, learned = self._losses(trial), self._learned
        if learned is None or not len(losses):
            return None
        steps, observed = self._evaluation.steps, len(losses)
        blocks = np.array(self._evaluation.blocks_of(max(trial.number, 0)))
        rests = losses - learned.effects[blocks[:observed]]
        centre = float(rests.mean()) if np.isfinite(rests).all() else math.inf
        own = float(rests.var(ddof=1)) if observed > 1 and math.isfinite(centre) else 0.0
        dof = learned.dof + observed - 1
        variance = (learned.dof * learned.variance + (observed - 1) * own) / dof
        variance *= (1 / observed - 1 / steps) * (1 + 1 / learned.trials)
        least = 1e-12 * max(1.0, abs(centre)) if math.isfinite(centre) else 1e-12
        return BlockForecast(
            max(trial.intermediate_values),
            observed,
            self._evaluation,
            self._orientation,
            centre + float(learned.effects[blocks].mean()),
            max(math.sqrt(variance), least),
            dof,
        )

    def forecasts(self, trials: Sequence[FrozenTrial]) -> list[BlockForecast | None]:
        """Forecast trials from the folds that they have here."""
        return [self.forecast(trial) for trial in trials]

    def expected(self, trials: Iterable[FrozenTrial]) -> dict[int, float]:
        """Forecast the means of pruned trials by number, in the objective's units."""
        pruned = (trial for trial in trials if trial.state == TrialState.PRUNED)
        made = ((trial.number, self.forecast(trial)) for trial in pruned)
        known = ((number, forecast.value) for number, forecast in made if forecast is not None)
        return {number: value for number, value in known if math.isfinite(value)}

    def shift(self, trial: FrozenTrial) -> float:
        """Return by how much a trial's folds are harder than all together, as a loss."""
        if self._learned is None:
            return 0.0
        blocks = np.array(self._evaluation.blocks_of(max(trial.number, 0)))
        return float(self._learned.effects[blocks].mean())

    def _losses(self, trial: FrozenTrial) -> np.ndarray:
        """Return a trial's losses on its first folds, in order; shape (folds,)."""
        viewed = trial if self._objective is None else seen_by(trial, self._objective)
        points = viewed.intermediate_values.copy()
        steps = range(min(len(points), self._evaluation.steps))
        return self._orientation * np.array([points.get(s, np.nan) for s in steps], dtype=float)


@dataclass(frozen=True, slots=True)
class BlockEffects:
    """What complete trials tell about folds."""

    effects: np.ndarray
    """By how much losses on each fold are above the mean; shape (folds,)."""
    variance: float
    """Prior variance of a trial's loss on a fold, its mean and the fold's effect removed."""
    dof: float
    """Degrees of freedom of that prior."""
    trials: int
    """Number of trials that this was learned from."""


def learn_effects(blocks: np.ndarray, losses: np.ndarray, count: int) -> BlockEffects | None:
    """Return effects and variances by the better half of complete trials; None if they are too few.

    Where trials have their folds in turns, all count: half of them may not link the folds.

    Args:
        blocks: folds of each trial; shape (trials, folds of a trial).
        losses: on them; of the same shape.
        count: number of folds.
    """
    if len(losses) < FINISHED_MIN:
        return None
    if blocks.shape[1] == count:
        half = max(FINISHED_MIN, math.ceil(len(losses) / 2))
        chosen = np.argsort(losses.mean(axis=1), kind="stable")[:half]
        blocks, losses = blocks[chosen], losses[chosen]
    trials, steps = losses.shape
    dof = trials * (steps - 1) - (count - 1)
    if dof < 1:
        return None
    effects = np.zeros(count)
    times = np.maximum(np.bincount(blocks.ravel(), minlength=count), 1)
    for _ in range(_ROUNDS):
        rests = losses - (losses - effects[blocks]).mean(axis=1, keepdims=True)
        effects = np.bincount(blocks.ravel(), rests.ravel(), minlength=count) / times
        effects -= effects.mean()
    rests = losses - effects[blocks]
    variances = rests.var(axis=1, ddof=1) * trials * (steps - 1) / dof
    variance, prior_dof = shared_variance(variances, steps - 1)
    prior_dof = min(max(min(prior_dof, dof), _DOF_MIN), _DOF_MAX)
    return BlockEffects(effects, variance, prior_dof, trials)


def shared_variance(variances: np.ndarray, dof: int) -> tuple[float, float]:
    """Return variance and degrees of freedom of the prior from which variances come.

    By moments of their logarithms, as in Smyth (2004). Infinite degrees of freedom mean that the
    variances differ by chance only.

    Args:
        variances: of samples; shape (samples,).
        dof: degrees of freedom of each.
    """
    mean = float(variances.mean())
    if mean <= 0:
        return 0.0, math.inf
    logs = np.log(np.maximum(variances, 1e-4 * mean)) - digamma(dof / 2) + math.log(dof / 2)
    excess = float(logs.var(ddof=1)) - float(polygamma(1, dof / 2))
    if excess <= 0:
        return mean, math.inf
    prior_dof = 2 * _inverse_trigamma(excess)
    centre = float(logs.mean()) + float(digamma(prior_dof / 2)) - math.log(prior_dof / 2)
    return math.exp(centre), prior_dof


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value by Newton's method, which converges from below for 1/x."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        change = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += change
        if -change / x < 1e-8:
            break
    return x
