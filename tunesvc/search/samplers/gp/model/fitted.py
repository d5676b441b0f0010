"""The posterior of one objective over a study's complete trials, for reports and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior, fit
from tunesvc.search.samplers.gp.model.observations import (
    OBSERVED_MAX,
    Observations,
    observe,
    prefers_log,
)
from tunesvc.spec.goals import Goal

FITTED_MAX = 200
"""Most trials that hyperparameters are fitted to."""


@dataclass(frozen=True, slots=True)
class PosteriorSummary:
    """A fitted model with its data."""

    domain: Domain
    seen: Observations
    posterior: Posterior

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Return function values in the objective's units, averaged over seed effects; same shape.

        The value without any seed effect differs where values are modelled by logarithms.
        """
        seeds = np.unique(self.seen.seeds)
        shifts = np.unique(self.posterior.shifts(seeds))  # 0 where each trial has its own seed
        placed = self.seen.centre + self.seen.unit * (values[..., None] + shifts)
        out: np.ndarray = self.seen.scale.back(placed).mean(axis=-1)
        return out

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of the noiseless function in the objective's units."""
        mean, variance = self.posterior.predict(points)
        return self.spread(mean, np.sqrt(variance))

    def spread(
        self,
        mean: np.ndarray,
        deviation: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Convert means and deviations to the objective's units."""
        low, middle, high = (self.in_units(mean + way * deviation) for way in (-1.0, 0.0, 1.0))
        return middle, np.abs(high - low) / 2


def fit_posterior(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_blocks: int | None,
) -> PosteriorSummary | None:
    """Fit the model; None while the trials differ in no parameter, or none is complete.

    Args:
        trials: each with one value; of many the model holds a sample.
        goal: of that value.
        shared_blocks: number of folds or seeds that trials have in turns, if they do.
    """
    kinds: dict[str, BaseDistribution] = {}
    for trial in trials:
        kinds |= {name: kind for name, kind in trial.distributions.items() if not kind.single()}
    if not kinds:
        return None
    domain = Domain(kinds)
    domain.learn_conditions(trials)
    direction = StudyDirection.MAXIMIZE if goal == "maximize" else StudyDirection.MINIMIZE

    def learn(seen: Observations) -> Hyperparameters:
        return fit(
            seen.points,
            seen.values,
            seen.variances,
            domain.choices,
            seen.seeds,
            decides=domain.decides,
        )

    is_log = prefers_log(
        trials,
        domain,
        direction,
        shared_blocks,
        FITTED_MAX,
        learn,
    )
    seen = observe(
        trials,
        domain,
        direction,
        None,
        shared_blocks,
        is_log=is_log,
    )
    if seen is None:
        return None
    known, seen = learn(seen.thinned(FITTED_MAX)), seen.thinned(OBSERVED_MAX)
    posterior = Posterior(
        known,
        domain.choices,
        seen.points,
        seen.values,
        seen.variances,
        seen.seeds,
    )
    return PosteriorSummary(domain, seen, posterior)
