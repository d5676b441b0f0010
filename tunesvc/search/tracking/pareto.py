"""Pareto dominance of several objectives. Rows are trials, columns losses. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesvc.util.optuna_internals import hypervolume, non_domination_ranks

_DIGITS = 12
"""Digits to which distances are compared, so that the order of the objectives does not matter."""


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return True if the losses `one` are nowhere worse than `other`, and somewhere better."""
    if tuple(one) == tuple(other):
        return False
    return all(a <= b for a, b in zip(one, other, strict=True))


def pareto_mask(losses: np.ndarray) -> np.ndarray:
    """Return a mask of the rows that no other row dominates. Equal rows all stay.

    Args:
        losses: Values to minimise; shape (n, objectives).
    """
    mask = np.zeros(len(losses), dtype=bool)
    remaining = np.lexsort(losses.T[::-1])
    while len(remaining):
        # The first in lexicographic order is dominated neither by a remaining row nor by one that
        # is already on the front.
        first = losses[remaining[0]]
        equal = np.all(losses[remaining] == first, axis=1)
        mask[remaining[equal]] = True
        remaining = remaining[np.any(losses[remaining] < first, axis=1)]
    return mask


def chance_to_extend(below: np.ndarray) -> float:
    """Return the probability that no row of a front dominates a new row.

    For independent objectives, applying each one's distribution function turns the new row into
    a point drawn uniformly from the unit cube, and what the front dominates into a hypervolume.

    Args:
        below: probability that the new row is better; shape (front, objectives).
    """
    if below.shape[1] == 1:
        return float(below.min())
    return float(
        np.clip(
            1.0 - hypervolume(below, np.ones(below.shape[1])),
            0.0,
            1.0,
        )
    )


def ranked(losses: np.ndarray) -> np.ndarray:
    """Return each row's rank from best to worst, 0 for the first; equal rows share one.

    The order of objectives does not matter, nor that of rows unless all else is equal.

    Rows are ordered by front, as in NSGA-II. Within a front the first few represent all of it: the
    most balanced row, then always the one farthest from those before it (an epsilon-net, as
    proposed by Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving"). Rows with
    infinities come last.
    """
    first: dict[tuple[float, ...], int] = {}
    which = np.array(
        [first.setdefault(tuple(row), len(first)) for row in losses.tolist()],
        dtype=int,
    )
    distinct = np.array(list(first), dtype=float).reshape(
        len(first),
        losses.shape[1],
    )
    finite = np.flatnonzero(np.isfinite(distinct).all(axis=1))
    low = np.min(distinct[finite], axis=0, initial=np.inf)
    high = np.max(distinct[finite], axis=0, initial=-np.inf)
    placed = np.zeros_like(distinct)
    placed[finite] = (distinct[finite] - low) / np.where(
        high > low,
        high - low,
        1.0,
    )
    fronts = non_domination_ranks(distinct[finite])
    order: list[int] = []
    for front in range(fronts.max(initial=-1) + 1):
        order += _net(placed, finite[fronts == front])
    counts = np.bincount(which, minlength=len(distinct))
    before = np.full(len(distinct), counts[finite].sum())
    before[order] = np.cumsum(counts[order]) - counts[order]
    return np.asarray(before[which])


def _net(placed: np.ndarray, front: np.ndarray) -> list[int]:
    """Order a front's rows, each as far as possible from those before it.

    The earliest of equal ones.
    """

    def distance(place: int) -> np.ndarray:
        return np.asarray(np.linalg.norm(placed[front] - placed[place], axis=1).round(_DIGITS))

    order = [int(front[placed[front].sum(axis=1).round(_DIGITS).argmin()])]
    apart = distance(order[0])
    while len(order) < len(front):
        order.append(int(front[apart.argmax()]))
        apart = np.minimum(apart, distance(order[-1]))
    return order
