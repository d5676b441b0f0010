"""Models of constraints: the probability that a point keeps them all.

Each constraint has its own model: a regression of its excess or, if it only ever says yes or no, a
classifier. Constraints are independent, given the parameters (Gardner et al. 2014, "Bayesian
optimization with inequality constraints").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from optuna.trial import FrozenTrial
from scipy.special import log_ndtr

from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior

_CAUTION = 5.0
"""Power of the probability; with 1, most asks at a border fail."""
_EXCESS_MAX = 2.0
"""Cap on a violation, in units of its usual size."""
_LATENT = 4.0
"""Variance of a classifier's latent function, in units of the fitted variance of labels of ±1."""
_NEWTON_STEPS, _CLOSE = 20, 1e-4

Fit = Callable[[np.ndarray, np.ndarray], Hyperparameters]
"""Fits hyperparameters to points and values of a function that may jump."""


class Feasibility:
    """Probability that a point keeps all constraints."""

    def __init__(self, constraints: Sequence[Posterior], tried: np.ndarray) -> None:
        """Take models of values that are above 0 where a constraint is violated, and all points
        that were tried."""
        self._constraints = constraints
        self._tried = tried

    @staticmethod
    def of(trials: Sequence[FrozenTrial], domain: Domain, fit: Fit) -> Feasibility | None:
        """Model the constraints that any of the trials violates; None if there is none.

        A trial without a value for a constraint counts as feasible by one unit.
        """
        names = sorted({name for trial in trials for name in trial.constraints})
        points, models = np.empty((0, len(domain))), []
        for name in names:
            excess = np.array([trial.constraints.get(name, np.nan) for trial in trials])
            is_judged = np.array([name in trial.constraints for trial in trials])
            if not (~(excess <= 0) & is_judged).any():
                continue
            if not len(points):
                points = np.stack([domain.locate(trial) for trial in trials])
            models.append(_model(points, _scaled(excess, is_judged), domain, fit))
        if not models:
            return None
        return Feasibility(models, points)

    def starts(self, count: int) -> np.ndarray:
        """Return the tried points that most likely keep all constraints."""
        order = np.argsort(-self.log_probability(self._tried), kind="stable")
        out: np.ndarray = self._tried[order[:count]]
        return out

    def log_factor(self, points: np.ndarray) -> np.ndarray:
        """Return the logarithm of what a point's value is multiplied by; shape (points,)."""
        out: np.ndarray = _CAUTION * self.log_probability(points)
        return out

    def log_value(self, points: np.ndarray) -> np.ndarray:
        """Return a point's value while no trial has kept all constraints; shape (points,)."""
        is_tried = (points[:, None] == self._tried).all(axis=2).any(axis=1)
        return np.where(is_tried, -np.inf, self.log_probability(points))

    def log_probability(self, points: np.ndarray) -> np.ndarray:
        """Return the logarithm of the probability that a point keeps all; shape (points,)."""
        out = np.zeros(len(points))
        for constraint in self._constraints:
            mean, variance = constraint.predict(points)
            # Noise is left out: a point that violated a constraint does so again.
            out += log_ndtr(-mean / np.sqrt(variance))
        return out


def _scaled(excess: np.ndarray, is_judged: np.ndarray) -> np.ndarray:
    """Return excesses in units of their median size; NaN is as bad as it gets."""
    sizes = np.abs(excess[np.isfinite(excess) & (excess != 0.0)])
    unit = float(np.median(sizes)) if len(sizes) else 1.0
    relative = np.nan_to_num(excess / unit, nan=_EXCESS_MAX).clip(-_EXCESS_MAX, _EXCESS_MAX)
    return np.where(is_judged, relative, -1.0)


def _model(points: np.ndarray, excess: np.ndarray, domain: Domain, fit: Fit) -> Posterior:
    if len(np.unique(excess)) <= 2:
        return _classifier(points, np.where(excess > 0, 1.0, -1.0), domain, fit)
    known = fit(points, excess)
    return Posterior(known, domain.choices, points, excess, np.zeros(len(excess)))


def _classifier(points: np.ndarray, labels: np.ndarray, domain: Domain, fit: Fit) -> Posterior:
    """Classify by a probit likelihood and Laplace's approximation.

    That is a regression of values with variances which each of Newton's steps derives from the
    function so far (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 3.4).
    """
    fitted = fit(points, labels)
    known = replace(
        fitted, signal=_LATENT * fitted.signal, own=_LATENT * fitted.own, noise=0.0, rest=0.0
    )
    function = np.zeros(len(labels))
    for _ in range(_NEWTON_STEPS):
        towards = labels * function
        ratio = np.exp(-0.5 * towards**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(towards))
        curvature = np.maximum(ratio * (ratio + towards), 1e-6)
        values = function + labels * ratio / curvature
        posterior = Posterior(known, domain.choices, points, values, 1.0 / curvature)
        before, function = function, posterior.mean(points)
        if np.abs(function - before).max() < _CLOSE:
            break
    return posterior
