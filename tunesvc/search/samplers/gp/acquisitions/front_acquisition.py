"""Acquisition for several objectives: the expected improvement of the hypervolume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesvc.search.samplers.gp.acquisitions.acquisition import (
    WORTH_A_RISK,
    WORTH_REPEATING,
    rows_of,
)
from tunesvc.search.samplers.gp.acquisitions.hypervolume import (
    HypervolumeImprovement,
    non_dominated,
)
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.gp_model import Posterior
from tunesvc.search.samplers.gp.model.warping import Warping

_FRONT_MAX = {2: 200, 3: 60, 4: 40}
"""Most points of a front by the number of objectives; the number of boxes grows with its power."""
_MARGIN = 0.1
"""Distance of the reference point beyond the front's ends, in parts of the front's extent."""
_TRADE = 0.03
"""Rate at which an objective's gain outweighs a loss of another at the front's ends."""
_CANDIDATES, _CLIMBERS, _NEIGHBOURS, _WIDTHS = 300, 3, 15, (0.2, 0.1, 0.03)


class FrontAcquisition:
    """Log expected improvement, by one observation, of the volume that posterior means dominate.

    The front is that of the means at finished and running trials, so a lucky observation does not
    belong to it. A point's gain is counted in what an observation changes of its means, which
    noise discounts (Daulton et al. 2021, "Parallel Bayesian optimization of multiple noisy
    objectives", with means for samples). Objectives are independent, given the parameters.
    """

    def __init__(
        self,
        objectives: Sequence[Posterior],
        points: np.ndarray,
        domain: Domain,
        seed: int,
        rng: np.random.Generator,
        *,
        tried: np.ndarray,
        failed: np.ndarray,
        feasibility: Feasibility | None = None,
    ) -> None:
        """Prepare the acquisition of one more trial.

        Args:
            objectives: their posteriors, in which running trials have expected values.
            points: feasible finished trials, and running ones.
            domain: where the front's ends are looked for.
            seed: of the next trial.
            rng: of that search.
            tried: all points that were tried.
            failed: points that lead to no value.
            feasibility: models of constraints, if any was violated.
        """
        self._objectives = objectives
        self._seed = seed
        self._tried, self._failed = rows_of(tried), rows_of(failed)
        self._feasibility = feasibility
        means = self._means(points)
        kept = np.flatnonzero(non_dominated(means))
        kept = kept[_spread_out(means[kept], _FRONT_MAX.get(len(objectives), 30))]
        self._points, self._front = points[kept], means[kept]
        self._reference = self._look_for_ends(domain, rng)
        self._improvement = HypervolumeImprovement(self._front, self._reference)

    @property
    def warping(self) -> Warping:
        """Warp of one objective's axes, of each in turn."""
        return self._objectives[self._seed % len(self._objectives)].warping

    def starts(self, count: int) -> np.ndarray:
        """Return points of the front, the farthest apart first; shape (count or less, d)."""
        out: np.ndarray = self._points[_spread_out(self._front, count)]
        return out

    def is_near(self, means: np.ndarray, deviations: np.ndarray) -> bool:
        """Return True if a prediction is close to the front or beyond; shapes (objectives,)."""
        is_behind = (self._front <= means - 0.5 * deviations).all(axis=1)
        return not bool(is_behind.any())

    def log_value(self, points: np.ndarray) -> np.ndarray:
        """Return the value of each point, -inf for useless repetitions; shape (points,)."""
        changes = [posterior.lookahead(points, self._seed) for posterior in self._objectives]
        means = np.column_stack([mean for mean, _ in changes])
        learned = np.column_stack([change for _, change in changes])
        rows = rows_of(points)
        is_tried = np.isin(rows, self._tried)
        has_nothing_new = (learned < WORTH_REPEATING).all(axis=1)
        is_useless = (is_tried & has_nothing_new) | np.isin(rows, self._failed)
        factor: np.ndarray | float = 0.0
        if self._feasibility is not None:
            learned = np.where(is_tried[:, None], learned, np.maximum(learned, WORTH_A_RISK))
            factor = self._feasibility.log_factor(points)
        gain = self._improvement.log_value(means, learned)
        return np.where(is_useless, -np.inf, gain + factor)

    def _look_for_ends(self, domain: Domain, rng: np.random.Generator) -> np.ndarray:
        """Return the reference point: a tenth of a front's extent beyond where it should end.

        The front found so far may be a small part, or end where nothing else but one objective is
        good. So its ends are the means where one objective is best, or all but one, with a little
        of the others (a pay-off table; for the little, Ikeda, Kita and Kobayashi 2001, "Failure of
        Pareto-based MOEAs").
        """
        points = np.vstack([domain.random(_CANDIDATES, rng), self._points])
        means = self._means(points)
        for width in _WIDTHS:
            best = np.argsort(_traded(means), axis=0, kind="stable")[:_CLIMBERS]
            steps = domain.near(points[np.unique(best)], _NEIGHBOURS, width, rng)
            points, means = np.vstack([points, steps]), np.vstack([means, self._means(steps)])
        ends = means[np.argmin(_traded(means), axis=0)]
        worst = ends.max(axis=0)
        reference = worst + _MARGIN * (worst - ends.min(axis=0))
        middle = self._front[np.argmin(self._front.sum(axis=1))]
        return np.asarray(np.maximum(reference, middle + 1e-3))

    def _means(self, points: np.ndarray) -> np.ndarray:
        return np.column_stack([posterior.mean(points) for posterior in self._objectives])


def _traded(means: np.ndarray) -> np.ndarray:
    """Return what is smallest at a front's ends: each objective alone, and all but each.

    Shape (points, ends).
    """
    every = means.sum(axis=1, keepdims=True)
    alone, others = means, every - means
    if means.shape[1] == 2:
        return np.asarray(alone + _TRADE * others)
    return np.hstack([alone + _TRADE * others, others + _TRADE * alone])


def _spread_out(front: np.ndarray, count: int) -> np.ndarray:
    """Return the places of points of a front, each as far as possible from those before."""
    if len(front) <= count:
        return np.arange(len(front))
    scaled = (front - front.min(axis=0)) / np.maximum(np.ptp(front, axis=0), 1e-12)
    chosen = [int(np.argmin(scaled[:, 0]))]
    apart = np.full(len(front), np.inf)
    while len(chosen) < count:
        apart = np.minimum(apart, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(apart)))
    return np.array(chosen)
