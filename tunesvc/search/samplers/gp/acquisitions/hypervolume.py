"""Expected improvement of the volume that a front dominates, of several objectives to minimise.

The region that no point of the front dominates is cut into boxes. For objectives that are
independent, the expected improvement is then a closed form: a sum over boxes of products over
objectives (Yang, Emmerich, Deutz and Bäck 2019, "Efficient computation of expected hypervolume
improvement"), exact for any number of objectives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx

_CHUNK = 100_000
"""Most numbers in one temporary array, which then stays in the processor's cache."""
_SQRT_HALF_PI, _SQRT_2, _SQRT_2PI = np.sqrt(np.pi / 2), np.sqrt(2.0), np.sqrt(2 * np.pi)


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Return True for each row that no other row dominates, and for the first of equal rows."""
    kept = np.ones(len(values), dtype=bool)
    for i, value in enumerate(values):
        if kept[i]:
            is_worse = (values >= value).all(axis=1)
            is_equal = (values == value).all(axis=1)
            is_equal[: i + 1] = False
            kept &= ~is_worse | (values == value).all(axis=1)
            kept &= ~is_equal
    return kept


def volume(front: np.ndarray, reference: np.ndarray) -> float:
    """Return the volume between a front and a reference point."""
    inside = front[(front < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    ideal = inside.min(axis=0)
    boxes = Boxes.of(inside, reference)
    free = np.prod(boxes.upper - np.maximum(boxes.lower, ideal), axis=1)
    is_empty = (boxes.upper <= ideal).any(axis=1)
    return float(np.prod(reference - ideal) - free[~is_empty].sum())


@dataclass(frozen=True, slots=True)
class Boxes:
    """Disjoint boxes that fill the region below a reference point that no point dominates."""

    lower: np.ndarray
    """Shape (boxes, objectives); -inf where a box has no end."""
    upper: np.ndarray

    @staticmethod
    def of(front: np.ndarray, reference: np.ndarray) -> Boxes:
        """Cut the region by a sweep along the last objective.

        At each level of it, boxes of the other objectives cover what is not dominated yet. A point
        ends the boxes that reach into what it dominates, and the rests of those continue.
        """
        inside = front[(front < reference).all(axis=1)]
        inside = inside[np.argsort(inside[:, -1], kind="stable")]
        flat = front.shape[1] - 1
        lower, upper = np.full((1, flat), -np.inf), reference[None, :-1].copy()
        since = np.full(1, -np.inf)
        ended: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
        for point in inside:
            corner, level = point[:-1], float(point[-1])
            is_cut = (upper > corner).all(axis=1)
            if not is_cut.any():
                continue
            ended.append((lower[is_cut], upper[is_cut], since[is_cut], level))
            rest_lower, rest_upper = _without(lower[is_cut], upper[is_cut], corner)
            lower = np.vstack([lower[~is_cut], rest_lower])
            upper = np.vstack([upper[~is_cut], rest_upper])
            since = np.concatenate([since[~is_cut], np.full(len(rest_lower), level)])
        ended.append((lower, upper, since, float(reference[-1])))
        lows = [np.column_stack([low, start]) for low, _, start, _ in ended]
        highs = [np.column_stack([high, np.full(len(high), end)]) for _, high, _, end in ended]
        low, high = np.vstack(lows), np.vstack(highs)
        has_volume = (high > low).all(axis=1)
        return Boxes(low[has_volume], high[has_volume])


def _without(
    lower: np.ndarray, upper: np.ndarray, corner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes into what remains below a corner in at least one objective."""
    lows, highs = [], []
    rest = lower.copy()
    for k, end in enumerate(corner):
        high = upper.copy()
        high[:, k] = np.minimum(high[:, k], end)
        is_left = high[:, k] > rest[:, k]
        lows.append(rest[is_left])
        highs.append(high[is_left])
        rest = rest.copy()
        rest[:, k] = np.maximum(rest[:, k], end)
    return np.vstack(lows), np.vstack(highs)


class HypervolumeImprovement:
    """Logarithm of the expected improvement of the volume that a front dominates."""

    def __init__(self, front: np.ndarray, reference: np.ndarray) -> None:
        """Take a front and a reference point; shapes (points, objectives), (objectives,)."""
        boxes = Boxes.of(front, reference)
        edges = [
            np.unique(np.concatenate([boxes.lower[:, k], boxes.upper[:, k]]))
            for k in range(front.shape[1])
        ]
        self._edges = edges
        self._lower = [np.searchsorted(e, boxes.lower[:, k]) for k, e in enumerate(edges)]
        self._upper = [np.searchsorted(e, boxes.upper[:, k]) for k, e in enumerate(edges)]

    def log_value(self, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        """Return the value of normal, independent objectives; both have shape (points, m).

        Where it is too small for a floating-point number, its largest term's bound stands for it,
        so that a climb has a slope everywhere (Ament et al. 2023, "Unexpected improvements").
        """
        rows = max(1, _CHUNK // max(len(self._upper[0]), 1))
        parts = [
            self._of_chunk(means[i : i + rows], deviations[i : i + rows])
            for i in range(0, len(means), rows)
        ]
        return np.concatenate(parts)

    def _of_chunk(self, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        product = np.ones((len(self._upper[0]), len(means)))
        for k, edges in enumerate(self._edges):
            below = shortfall(edges[:, None], means[:, k], deviations[:, k])
            product *= below[self._upper[k]] - below[self._lower[k]]
        total = product.sum(axis=0)
        is_lost = total < 1e-280
        out = np.log(np.where(is_lost, 1.0, total))
        if is_lost.any():
            out[is_lost] = self._bound(means[is_lost], deviations[is_lost])
        return out

    def _bound(self, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        """Return the logarithm of the largest term, without the lower ends of boxes."""
        bound = np.zeros((len(self._upper[0]), len(means)))
        for k, edges in enumerate(self._edges):
            bound += log_shortfall(edges[:, None], means[:, k], deviations[:, k])[self._upper[k]]
        out: np.ndarray = np.minimum(bound.max(axis=0), np.log(1e-280))
        return out


def shortfall(end: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E[max(end - y, 0)] of a normal y, accurate far below 0 too."""
    z = (end - mean) / deviation
    tail = np.abs(z)
    share = np.exp(-0.5 * tail**2) / _SQRT_2PI * _remainder(tail)
    out: np.ndarray = deviation * np.where(z > 0.0, z + share, share)
    return np.where(np.isneginf(end), 0.0, out)


def log_shortfall(end: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Logarithm of `shortfall`."""
    z = (end - mean) / deviation
    tail = np.maximum(-z, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = -0.5 * tail**2 + np.log(np.maximum(_remainder(tail), 1e-30) / _SQRT_2PI)
        near = np.log(shortfall(end, mean, deviation) / deviation)
    out: np.ndarray = np.log(deviation) + np.where(z < -1.0, far, near)
    return np.where(np.isneginf(end), -np.inf, out)


def _remainder(tail: np.ndarray) -> np.ndarray:
    """E[max(-tail - a standard normal, 0)] in units of the density at `tail`."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = 1.0 - tail * _SQRT_HALF_PI * erfcx(tail / _SQRT_2)
        far = 1.0 / (tail * tail + 3.0)
    out: np.ndarray = np.where(tail > 1e4, far, near)
    return np.where(np.isposinf(tail), 0.0, np.maximum(out, 0.0))
