"""Exploration of PB2: parameters of a copy are selected by a Gaussian process.

Parker-Holder, Nguyen and Roberts 2020, "Provably Efficient Online Hyperparameter Optimization with
Population-Based Bandits". The model predicts how much a member improves between two stops, from
the step at which it starts, its value there and its parameters; members that train now count with
what the model expects of them. It is the Gaussian process of `sampler: gp`, whose length scale for
steps replaces the paper's rate of forgetting. Conditional parameters and choices are allowed, as in
its follow-up (2021, "Tuning Mixed Input Hyperparameters on the Fly").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.population.member_sampler import MemberSampler
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.gp_model import Posterior, fit
from tunesvc.search.tracking.lineage import Parent, parent_of
from tunesvc.search.tracking.objectives import orientations_of

_LATEST_MAX = 150
"""Most stretches that the model is fitted to: the latest, since the best parameters change."""
_FEWEST = 6
"""Fewest stretches for a model; before, copies draw their parameters evenly."""
_CANDIDATES = 1_000
_ROUNDS = ((200, 0.15), (100, 0.05), (100, 0.02))
"""Numbers of neighbours of the best point in successive rounds, and how far they are."""
_OUTLIER = 3.0
"""Improvements further from the mean, in standard deviations, count as that far."""


class _Stretch(NamedTuple):
    """Training between two stops."""

    start: int
    loss: float
    """At its start."""
    params: Mapping[str, Any]
    gain: float
    """Decrease of the loss per step; NaN while it runs."""


class Pb2Sampler(MemberSampler):
    """Selects the parameters with the greatest upper confidence bound of the improvement."""

    version = "pb2 1"

    def explore(
        self,
        study: Study,
        trial: FrozenTrial,
        parent: FrozenTrial,
        domain: Domain,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the parameters of a copy, and words about how some of them were chosen."""
        trials = study.get_trials(deepcopy=False)
        domain.learn_conditions([one for one in trials if one.params])
        done, running = self._stretches(study, trials)
        begins = _start_of(parent_of(trial), {parent.number: _losses(study, parent)})
        if len(done) < _FEWEST or not begins or not math.isfinite(begins[0][1]):
            text = f"drawn evenly, since {len(done)} stretches are too few for a model"
            return domain.decode(domain.random(1, rng)[0]), {"": text}
        start = _Stretch(*begins[0], parent.params, math.nan)
        model = _fitted(done, running, domain, self._search.last_step)
        best = model.best(start, domain.encode(parent.params), rng)
        mean, deviation = model.forecast(start, best)
        unit = self._search.interval or 1
        text = (
            f"expected to improve by {mean * unit:.3g} ± {deviation * unit:.2g} until the next "
            f"stop, by a model of {len(done)} stretches"
        )
        return domain.decode(best), {"": text}

    def _stretches(
        self,
        study: Study,
        trials: Sequence[FrozenTrial],
    ) -> tuple[list[_Stretch], list[_Stretch]]:
        """Return the finished stretches, the latest last, and those that run."""
        curves = {trial.number: _losses(study, trial) for trial in trials}
        done, running = [], []
        for trial in trials:
            stops = _start_of(parent_of(trial), curves)
            for step, loss in sorted(curves[trial.number].items()):
                stop = self._search.stop_at(step)
                if stop > (self._search.stop_at(stops[-1][0]) if stops else 0):
                    stops.append((step, loss))
            for (start, before), (end, after) in pairwise(stops):
                gain = (before - after) / (end - start)
                done.append(_Stretch(start, before, trial.params, gain))
            if stops and trial.state == TrialState.RUNNING:
                running.append(_Stretch(*stops[-1], trial.params, math.nan))
        done = [one for one in done if math.isfinite(one.gain) and math.isfinite(one.loss)]
        running = [one for one in running if math.isfinite(one.loss)]
        return sorted(done, key=lambda one: one.start)[-_LATEST_MAX:], running


def _losses(study: Study, trial: FrozenTrial) -> dict[int, float]:
    orientation = float(orientations_of(study)[0])
    return {step: orientation * value for step, value in trial.intermediate_values.items()}


def _start_of(
    origin: Parent | None,
    curves: Mapping[int, Mapping[int, float]],
) -> list[tuple[int, float]]:
    """Return the point at which a copy began."""
    if origin is None or origin.step not in curves.get(origin.trial, {}):
        return []
    return [(origin.step, curves[origin.trial][origin.step])]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of the model: where a stretch starts, and its parameters."""

    domain: Domain
    last_step: int
    low: float
    high: float
    """Range of the losses."""

    @property
    def choices(self) -> np.ndarray:
        """Number of choices of each input; 0 for a number."""
        return np.concatenate([[0, 0], self.domain.choices])

    def at(self, start: _Stretch, points: np.ndarray) -> np.ndarray:
        """Return points of the domain with a start before them."""
        loss = (start.loss - self.low) / max(self.high - self.low, 1e-12)
        return np.hstack([np.tile([start.start / self.last_step, loss], (len(points), 1)), points])

    def of(self, stretches: Sequence[_Stretch]) -> np.ndarray:
        """Return one row for each stretch."""
        rows = [self.at(one, self.domain.encode(one.params)[None]) for one in stretches]
        return np.vstack(rows)


@dataclass(frozen=True, slots=True)
class _GainModel:
    """The posterior of the gain, with its unit."""

    inputs: _Inputs
    posterior: Posterior
    centre: float
    unit: float
    kappa: float
    """Weight of the deviation in the bound."""

    def forecast(self, start: _Stretch, point: np.ndarray) -> tuple[float, float]:
        """Return the expected gain per step, and its deviation."""
        mean, variance = self.posterior.predict(self.inputs.at(start, point[None]))
        return (
            float(self.centre + self.unit * mean[0]),
            float(self.unit * np.sqrt(variance[0])),
        )

    def best(
        self,
        start: _Stretch,
        parent: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the point with the greatest bound."""
        domain = self.inputs.domain
        points = np.vstack([domain.random(_CANDIDATES, rng), parent[None]])
        best = points[np.argmax(self._bound(start, points))]
        for count, width in _ROUNDS:
            points = np.vstack([best[None], domain.near(best[None], count, width, rng)])
            best = points[np.argmax(self._bound(start, points))]
        return np.asarray(best)

    def _bound(self, start: _Stretch, points: np.ndarray) -> np.ndarray:
        mean, variance = self.posterior.predict(self.inputs.at(start, points))
        return np.asarray(mean + self.kappa * np.sqrt(variance))


def _fitted(
    done: Sequence[_Stretch],
    running: Sequence[_Stretch],
    domain: Domain,
    last_step: int,
) -> _GainModel:
    """Fit the model, and add what it expects of the stretches that run."""
    losses = [one.loss for one in (*done, *running)]
    inputs = _Inputs(domain, last_step, min(losses), max(losses))
    gains = np.array([one.gain for one in done])
    centre, unit = float(gains.mean()), max(float(gains.std()), 1e-12)
    values = np.clip((gains - centre) / unit, -_OUTLIER, _OUTLIER)
    points, choices = inputs.of(done), inputs.choices
    known = fit(points, values, np.zeros(len(values)), choices)
    posterior = Posterior(known, choices, points, values, np.zeros(len(values)))
    if running:
        expected = inputs.of(running)
        points, values = np.vstack([points, expected]), np.append(values, posterior.mean(expected))
        posterior = Posterior(known, choices, points, values, np.zeros(len(values)))
    beta = 0.2 + max(0.0, math.log(0.4 * len(done)))  # as in the program of the paper's authors
    return _GainModel(inputs, posterior, centre, unit, math.sqrt(beta))
