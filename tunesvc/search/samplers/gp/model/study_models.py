"""Models of a study's objectives and constraints, as they are when a trial is proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.pruners.curve.forecasts import ForecastModel
from tunesvc.search.pruners.curve.study_forecasts import models_of
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.fit_cache import FitCache
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior
from tunesvc.search.samplers.gp.model.observations import (
    OBSERVED_MAX,
    Observations,
    observe,
    prefers_log,
)
from tunesvc.search.samplers.gp.model.trade_off import trade_off_scales
from tunesvc.search.tracking.objectives import seen_by
from tunesvc.search.tracking.scale import ValueScale
from tunesvc.search.tracking.transferred import split
from tunesvc.search.training_seeds import groups

_FITTED_MAX = 150
"""Most observations that hyperparameters are fitted to."""
_EVERY_UP_TO, _GROWTH = 20, 1.1
"""Number of finished trials up to which each one leads to a new fit;
then every growth by `_GROWTH`."""
_NEAREST_MODELLED = 100
"""Observations in the model of a neighbourhood, unless there are many parameters."""


@dataclass(frozen=True, slots=True)
class ObjectiveModel:
    """Observations of one objective, and the model of them."""

    every: Observations
    seen: Observations
    """The modelled ones."""
    observed: Posterior
    """The model without running trials."""
    posterior: Posterior
    """The model with running trials, as if each had its expected value."""

    def predict(self, point: np.ndarray) -> tuple[float, float]:
        """Return mean and deviation of the function at a point, on the scale."""
        (mean,), (variance,) = self.posterior.predict(point[None])
        return float(mean), math.sqrt(variance)

    def in_units(self, mean: float, deviation: float, seeds: np.ndarray) -> tuple[float, float]:
        """Return a prediction for a trial with this seed in the objective's units."""
        (shift,) = self.posterior.shifts(seeds)
        return self.seen.in_units(float(mean + shift), deviation)

    def correlations(self, domain: Domain) -> dict[str, float]:
        """Return the learned correlation with each earlier study, by name.

        Empty while the trials of one side have no values.
        """
        has_own = (self.every.numbers >= 0).any()
        names = domain.sources if has_own else ()
        return {name: self.posterior.correlation(domain.differing(name)) for name in names}

    def nearest(self, point: np.ndarray, count: int) -> list[dict[str, float]]:
        """Return the observed trials nearest to a point, and their distances in length scales."""
        distances = self.posterior.distances(point, self.seen.points)
        order = np.argsort(distances, kind="stable")[:count]
        numbers = self.seen.numbers[order].tolist()
        pairs = zip(numbers, order, strict=True)
        return [{"number": number, "distance": float(distances[i])} for number, i in pairs]


class StudyModels:
    """Makes the models of one study from its trials."""

    def __init__(
        self,
        study: Study,
        trials: Sequence[FrozenTrial],
        domain: Domain,
        fits: FitCache,
        shared_blocks: int | None,
        fewest: int,
    ) -> None:
        """Take the trials to learn from: finished, pruned and running ones.

        With fewer finished ones than `fewest`, forecasts of others count for hyperparameters too.
        """
        self._study = study
        self._trials = trials
        self._domain = domain
        self._fits = fits
        self._shared_blocks = shared_blocks
        self._fewest = fewest
        self.ended = sum(trial.state.is_finished() for trial in trials)
        """Number of trials that have finished or were pruned."""

    @cached_property
    def running(self) -> np.ndarray:
        """Points of running trials; shape (trials, parameters)."""
        return self.points(self._in(TrialState.RUNNING))

    def points(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Return trials as points; shape (trials, parameters)."""
        rows = [self._domain.locate(trial) for trial in trials]
        return np.array(rows).reshape(-1, len(self._domain))

    def objectives(self) -> Sequence[ObjectiveModel]:
        """Return a model of each objective; none before any trial has finished."""
        study, trials = self._study, self._trials
        finished = self._in(TrialState.COMPLETE)
        if not finished:
            return ()
        curves: Sequence[ForecastModel | None] = [None] * len(study.directions)
        if any(trial.intermediate_values for trial in trials):
            curves = models_of(study)
        if len(study.directions) == 1:
            return [self._objective(trials, study.directions[0], curves[0], ())]
        scales = trade_off_scales(finished, study.directions)
        learned = self._to_learn_from(finished)
        of_learned = trade_off_scales(learned, study.directions) if learned else scales
        return [
            self._objective(
                [seen_by(trial, k) for trial in trials],
                direction,
                curves[k],
                (scales[k], of_learned[k]),
            )
            for k, direction in enumerate(study.directions)
        ]

    def neighbourhood(self, whole: ObjectiveModel) -> ObjectiveModel:
        """Model the observations nearest to the best known point, in units of their own."""
        means = np.where(whole.seen.is_candidate, whole.posterior.mean(whole.seen.points), np.inf)
        best = whole.seen.points[means.argmin()]
        distances = whole.posterior.distances(best, whole.every.points)
        count = max(_NEAREST_MODELLED, 2 * len(self._domain))
        nearest = np.sort(np.argsort(distances, kind="stable")[:count])
        seen = whole.every.part(nearest).standardised()
        return self._fitted(whole.every, seen, self._fits.of(seen, self._domain))

    def feasibility(self) -> Feasibility | None:
        """Return the models of constraints; None while none was violated.

        Those of earlier studies are not known.
        """
        _, own = split(self._trials)
        ended = [trial for trial in own if trial.state.is_finished()][-OBSERVED_MAX:]
        milestone = _milestone(len(ended))
        learned = slice(max(0, milestone - _FITTED_MAX), milestone)

        def learn(points: np.ndarray, values: np.ndarray) -> Hyperparameters:
            return self._fits.of_constraint(points[learned], values[learned], self._domain)

        return Feasibility.of(ended, self._domain, learn)

    def tried(self, objective: ObjectiveModel) -> np.ndarray:
        """Return points that were or are being measured; shape (trials, parameters)."""
        return np.vstack([objective.every.points, self.points(self._without_value(objective))])

    def failed(self, objective: ObjectiveModel) -> np.ndarray:
        """Return points of trials that led to no value at all; shape (trials, parameters)."""
        pruned = [t for t in self._without_value(objective) if t.state == TrialState.PRUNED]
        return self.points([trial for trial in pruned if not trial.intermediate_values])

    def _without_value(self, objective: ObjectiveModel) -> Sequence[FrozenTrial]:
        known = set(objective.every.numbers.tolist())
        return [trial for trial in self._trials if trial.number not in known]

    def seeds_of(self, numbers: Sequence[int]) -> np.ndarray:
        """Return equal numbers for trials that share a training seed."""
        return groups(np.array(numbers), self._shared_blocks)

    def _in(self, state: TrialState) -> Sequence[FrozenTrial]:
        return [trial for trial in self._trials if trial.state == state]

    def _objective(
        self,
        trials: Sequence[FrozenTrial],
        direction: StudyDirection,
        curve: ForecastModel | None,
        scales: Sequence[ValueScale],
    ) -> ObjectiveModel:
        """Model one objective; the trials are as those of a study with that one only.

        Args:
            scales: of the values, and of those that hyperparameters are fitted to; empty to derive
                both.
        """
        domain, shared = self._domain, self._shared_blocks
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        to_learn = self._to_learn_from(finished)
        learn = partial(self._fits.of, domain=domain)
        is_log = None
        if to_learn and not scales:
            is_log = prefers_log(to_learn, domain, direction, shared, _FITTED_MAX, learn)
        now, then = scales or (None, None)
        every = observe(trials, domain, direction, curve, shared, is_log=is_log, scale=now)
        if every is None:
            raise ValueError("no trial has finished")
        seen = every.thinned(OBSERVED_MAX)
        learned = observe(to_learn, domain, direction, None, shared, is_log=is_log, scale=then)
        return self._fitted(every, seen, learn((learned or seen).thinned(_FITTED_MAX)))

    def _to_learn_from(self, finished: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Return the finished trials that hyperparameters are fitted to; empty while too few.

        They are fitted again whenever own finished trials have grown by a tenth.
        """
        transferred, own = split(finished)
        learned = [*transferred, *own[: _milestone(len(own))]]
        return learned if len(learned) >= self._fewest else ()

    def _fitted(
        self, every: Observations, seen: Observations, known: Hyperparameters
    ) -> ObjectiveModel:
        arrays = (seen.points, seen.values, seen.variances, seen.seeds)
        observed = Posterior(known, self._domain.choices, *arrays)
        posterior = self._with_running(observed, seen) if len(self.running) else observed
        return ObjectiveModel(every, seen, observed, posterior)

    def _with_running(self, posterior: Posterior, seen: Observations) -> Posterior:
        """Add running trials with expected values: they will have finished when this one does."""
        points = self.running
        seeds = self.seeds_of([trial.number for trial in self._in(TrialState.RUNNING)])
        return Posterior(
            posterior.known,
            self._domain.choices,
            np.vstack([seen.points, points]),
            np.concatenate([seen.values, posterior.mean(points, seeds)]),
            np.concatenate([seen.variances, np.zeros(len(points))]),
            np.concatenate([seen.seeds, seeds]),
        )


def _milestone(count: int) -> int:
    """Return the largest of 20, 22, 24, 26 ... (a tenth more each) that is not above a count."""
    if count <= _EVERY_UP_TO:
        return count
    steps = int(math.log(count / _EVERY_UP_TO) / math.log(_GROWTH) + 1e-9)
    return int(_EVERY_UP_TO * _GROWTH**steps)
