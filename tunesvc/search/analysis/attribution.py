"""Attribution: a trial's predicted value, split among its parameters, against the average trial or
against another one.

Shapley values (Shapley 1953; for predictions, Strumbelj and Kononenko 2014; with left-out values
drawn from other trials, Lundberg and Lee 2017). Against one other trial,
those are that trial's values ("baseline Shapley": Sundararajan and Najmi 2020). They add up exactly
to the difference of the predictions, however many orders are sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tunesvc.search.analysis.model_surface import ModelSurface

BACKGROUND = 32
"""Trials that the average is taken over."""
EXACT_MAX = 8
"""Most parameters for which all sets are computed; beyond, orders are sampled."""
_SETS_MAX = 500
"""Approximate number of sets that are evaluated when orders are sampled."""
_BATCH = 4_000


@dataclass(frozen=True, slots=True)
class ParameterEffect:
    """Effect of one parameter."""

    name: str
    amount: float
    """Change of the predicted value, in the objective's units."""
    exists: bool
    """True if the trial has the parameter; its absence may matter too."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """A predicted value, split into a reference and one part per parameter."""

    reference: float
    """Model's prediction for the other trial, or its mean over the study's trials."""
    predicted: float
    """Model's prediction for this trial: the reference plus all parts."""
    deviation: float
    """Standard deviation of the prediction, without the noise of a single result."""
    parts: tuple[ParameterEffect, ...]
    """Effects, the largest first."""
    learned: int
    """Number of trials that the model was fitted to."""
    is_exact: bool
    """True if all sets of parameters were computed."""
    against: int | None = None
    """Number of the other trial; None for the average of the study's trials."""


def attribute(
    surface: ModelSurface,
    params: Mapping[str, Any],
    other: Mapping[str, Any] | None = None,
) -> Attribution:
    """Split a configuration's predicted value among its parameters; deterministic for a model.

    Args:
        surface: Model of the study.
        params: Configuration to explain.
        other: Configuration to compare it with; None for the average of the study's trials.
    """
    point, names = surface.encode(params), surface.names
    others = surface.observed(BACKGROUND) if other is None else surface.encode(other)[None]

    def worth(sets: np.ndarray) -> np.ndarray:
        """Predict with a set's parameters as here, averaged over the others' values elsewhere."""
        points = np.vstack([surface.mixed(selected, point, others) for selected in sets])
        batches = [points[i : i + _BATCH] for i in range(0, len(points), _BATCH)]
        means = np.concatenate([surface.mean(batch) for batch in batches])
        averaged: np.ndarray = means.reshape(len(sets), len(others)).mean(
            axis=1,
        )
        return averaged

    amounts = shapley(worth, len(names))
    none = np.zeros(len(names), dtype=bool)
    every = np.ones(len(names), dtype=bool)
    ends = worth(np.array([none, every]))
    order = np.argsort(-np.abs(amounts), kind="stable")
    parts = [
        ParameterEffect(
            names[i],
            float(amounts[i]),
            names[i] in params,
        )
        for i in order
    ]
    return Attribution(
        reference=float(ends[0]),
        predicted=float(ends[1]),
        deviation=surface.deviation(point),
        parts=tuple(parts),
        learned=len(surface),
        is_exact=len(names) <= EXACT_MAX,
    )


def shapley(
    worth: Callable[[np.ndarray], np.ndarray],
    players: int,
    seed: int = 0,
) -> np.ndarray:
    """Return each player's mean contribution over all orders of joining; shape (players,).

    Args:
        worth: of sets of players, boolean masks of shape (sets, players).
        players: number of players.
        seed: of sampled orders, if there are too many to take all.
    """
    return _exact(worth, players) if players <= EXACT_MAX else _sampled(worth, players, seed)


def _exact(
    worth: Callable[[np.ndarray], np.ndarray],
    players: int,
) -> np.ndarray:
    codes = np.arange(2**players)
    sets = (codes[:, None] >> np.arange(players)) & 1 == 1
    worths, sizes = worth(sets), sets.sum(axis=1)
    # Share of the orders in which a set of that size joins right before a given player.
    shares = np.array([_share(size, players) for size in range(players)])
    amounts = np.zeros(players)
    for player in range(players):
        without = codes[~sets[:, player]]
        gains = worths[without | (1 << player)] - worths[without]
        amounts[player] = (shares[sizes[without]] * gains).sum()
    return amounts


def _share(size: int, players: int) -> float:
    return factorial(size) * factorial(players - 1 - size) / factorial(players)


def _sampled(
    worth: Callable[[np.ndarray], np.ndarray],
    players: int,
    seed: int,
) -> np.ndarray:
    """Sample random orders with their reverses (Mitchell et al. 2022, "Sampling permutations")."""
    rng = np.random.default_rng(seed)
    count = max(2, _SETS_MAX // (2 * (players + 1)))
    both = []
    for _ in range(count):
        order = rng.permutation(players)
        both += [order, order[::-1]]
    joined = np.array([np.argsort(order) for order in both])  # position at which each player joins
    sets = np.vstack([ranks[None] < np.arange(players + 1)[:, None] for ranks in joined])
    steps = np.diff(worth(sets).reshape(len(both), players + 1), axis=1)
    return np.asarray(np.take_along_axis(steps, joined, axis=1).mean(axis=0))
