"""Forecasts of a trial's mean over folds or repeats, from the first ones. Knows Optuna's trials.

A trial's loss on a fold is its mean, plus an effect of the fold on all trials alike, plus a rest. A
trial is compared on the same folds with the better half of the finished trials, whose average gives
the effects: that halves the variance of a comparison with the best one alone. Trials that beat the
best one are like them, so that the worse half tells nothing about the rests of such a trial.

A trial's own variance of the rests is shrunk to the prior that `block_effects` fits to finished
trials. So one fold suffices for a forecast, a Student t. The forecast is of the mean over the
trial's own folds, a finite population: the factor is 1/k - 1/K after k of K of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import stdtr, stdtrit

from tunesvc.search.pruners.curve.block_effects import BlockEffects, learn_effects
from tunesvc.search.tracking.finished import FinishedTrials
from tunesvc.search.tracking.objectives import seen_by
from tunesvc.search.tracking.scale import WORST, ValueScale
from tunesvc.search.tracking.transferred import split
from tunesvc.space.directions import goal_of
from tunesvc.spec import Evaluation
from tunesvc.spec.goals import orient


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
        """Number of folds so far, as text."""
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
        """Effects of folds; None while too few trials are complete."""
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
                np.array([self._evaluation.block_indices(number) for number in numbers]),
                np.array([self._complete[number] for number in numbers]),
                self._evaluation.count,
            )

    def forecast(self, trial: FrozenTrial) -> BlockForecast | None:
        """Forecast a trial; None before its first fold, or while too few are complete."""
        losses, learned = self._losses(trial), self._learned
        if learned is None or not len(losses):
            return None
        steps, observed = self._evaluation.steps, len(losses)
        blocks = np.array(self._evaluation.block_indices(max(trial.number, 0)))
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
        blocks = np.array(self._evaluation.block_indices(max(trial.number, 0)))
        return float(self._learned.effects[blocks].mean())

    def _losses(self, trial: FrozenTrial) -> np.ndarray:
        """Return a trial's losses on its first folds, in order; shape (folds,)."""
        viewed = trial if self._objective is None else seen_by(trial, self._objective)
        points = viewed.intermediate_values.copy()
        steps = range(min(len(points), self._evaluation.steps))
        return self._orientation * np.array([points.get(s, np.nan) for s in steps], dtype=float)
