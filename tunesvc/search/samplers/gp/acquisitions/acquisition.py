"""Acquisition: the expected improvement of the recommendation by one more observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import logsumexp, ndtr

from tunesvc.search.samplers.gp.acquisitions.region import Region
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.gp_model import Posterior
from tunesvc.search.samplers.gp.model.warping import Warping

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_CANDIDATES = 1_000
_WIDTHS = (0.15, 0.1, 0.05, 0.02, 0.005)
"""Step sizes of successive rounds of local search, in parts of the region's width."""
_CLIMBERS, _NEIGHBOURS = 8, 30
WORTH_A_RISK = 0.04
"""Least information value of a point that may violate constraints, for values with variance 1.
Else a model that knows the function well would ask beyond a border once it has reached it,
because there is something to gain only there."""

WORTH_REPEATING = 0.01
"""Least information value of a repetition, for values with variance 1:
less is rounding, not noise."""


@dataclass(frozen=True, slots=True)
class Incumbents:
    """Points that would be recommended now, by the model's mean, one for each draw."""

    best: np.ndarray
    """Rows as in `rows_of`; shape (draws,)."""
    best_mean: np.ndarray
    second_mean: np.ndarray
    """Mean of the best other point; shape (draws,)."""

    @staticmethod
    def of(points: np.ndarray, means: np.ndarray) -> Incumbents:
        """Return the best of points; `means` has shape (points,) or (points, draws)."""
        means, rows = means.reshape(len(points), -1), rows_of(points)
        best, best_mean = rows[means.argmin(axis=0)], means.min(axis=0)
        others = np.where(rows[:, None] != best, means, np.inf).min(axis=0)
        return Incumbents(best, best_mean, np.where(np.isinf(others), best_mean, others))


class Acquisition:
    """Log expected improvement of the best posterior mean (low is good) by one observation.

    This is the knowledge gradient (Frazier, Powell and Dayanik 2009) over the two points that
    matter: the observed one and the incumbent, or for the incumbent itself the runner-up. Without
    noise it is expected improvement. Information is discounted by noise, so a promising point is
    measured again once that is worth more than a new point. Almost without noise it never is, nor
    where all repeats so far agree; nor is a point that has failed.
    """

    def __init__(
        self,
        objective: Posterior,
        incumbents: Incumbents,
        seed: int,
        *,
        tried: np.ndarray,
        failed: np.ndarray,
        feasibility: Feasibility | None = None,
        is_deterministic: bool = False,
    ) -> None:
        """Prepare the acquisition of one more trial.

        Args:
            seed: training seed of the point.
            tried: points that were or are being measured; shape (n, parameters).
            failed: points that led to no value; shape (m, parameters).
            feasibility: models of constraints, if any was violated.
            is_deterministic: True if a repetition is known to tell nothing.
        """
        self._objective = objective
        self._incumbents = incumbents
        self._seed = seed
        self._tried = rows_of(tried)
        self._failed = rows_of(failed)
        self._feasibility = feasibility
        self._is_deterministic = is_deterministic

    @property
    def warping(self) -> Warping:
        """Warp of the objective's axes."""
        return self._objective.warping

    def log_value(self, points: np.ndarray) -> np.ndarray:
        """Return the value of each point, -inf for useless repetitions; shape (points,)."""
        mean, learned = self._objective.lookahead(points, self._seed)
        rows = rows_of(points)
        is_tried = np.isin(rows, self._tried)
        is_known = self._is_deterministic | (learned < WORTH_REPEATING)
        is_useless = (is_tried & is_known) | np.isin(rows, self._failed)
        factor: np.ndarray | float = 0.0
        if self._feasibility is not None:
            learned = np.where(is_tried, learned, np.maximum(learned, WORTH_A_RISK))
            factor = self._feasibility.log_factor(points)
        is_best = rows[:, None] == self._incumbents.best
        rival = np.where(is_best, self._incumbents.second_mean, mean.reshape(len(points), -1))
        gains = _log_improvement((self._incumbents.best_mean - rival) / learned[:, None])
        gain = logsumexp(gains, axis=1) - np.log(gains.shape[1])
        return np.where(is_useless, -np.inf, np.log(learned) + gain + factor)

    def is_near(self, means: np.ndarray, deviations: np.ndarray) -> bool:
        """Return True if a prediction is close to the best known value; shapes (1,)."""
        return bool(means[0] - self._incumbents.best_mean.mean() < 0.5 * deviations[0])


class Valued(Protocol):
    """Points and their values, as `maximise` takes them."""

    def log_value(self, points: np.ndarray) -> np.ndarray:
        """Return the value's logarithm of each point; shape (points,)."""


def maximise(
    acquisition: Valued,
    region: Region,
    starts: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Return a point of a high acquisition value, and the value's logarithm.

    Samples the whole region and the neighbourhood of `starts`, then climbs from the best points in
    ever smaller steps. Choices and numbers are treated alike and no gradient is needed, so
    conditional spaces are no harder than others.
    """
    points = np.vstack(
        [
            region.random(_CANDIDATES, rng),
            region.near(starts, _NEIGHBOURS, _WIDTHS[0], rng),
            starts,
        ]
    )
    values = acquisition.log_value(points)
    for width in _WIDTHS:
        top = np.argsort(-values, kind="stable")[:_CLIMBERS]
        steps = region.near(points[top], _NEIGHBOURS, width, rng)
        points = np.vstack([points[top], steps])
        values = np.concatenate([values[top], acquisition.log_value(steps)])
    best = int(np.argmax(values))
    return points[best], float(values[best])


def rows_of(points: np.ndarray) -> np.ndarray:
    """Return each point as one value that can be compared; shape (points,)."""
    rows = np.ascontiguousarray(points, dtype=float)
    return rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel()


def _log_improvement(z: np.ndarray) -> np.ndarray:
    """log E[max(z + a standard normal, 0)], also far below 0.

    Ament et al. 2023, "Unexpected improvements".
    """
    safe = np.maximum(z, -5.0)
    near = np.log(safe * ndtr(safe) + np.exp(-0.5 * safe**2 - _LOG_SQRT_2PI))
    far = -0.5 * z**2 - _LOG_SQRT_2PI - 2 * np.log(np.maximum(-z, 5.0))
    out: np.ndarray = np.where(z > -5.0, near, far)
    return out
