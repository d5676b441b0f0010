"""Which of a trial's parameters made it good or bad: its predicted value, split among them, against the average trial.

Shapley values (Shapley 1953; for predictions, Strumbelj and Kononenko 2014; with what is left out drawn from the other
trials, Lundberg and Lee 2017). They add up to exactly the prediction less the average, however many are sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np

from tunesvc.search.analysis.model_surface import ModelSurface

BACKGROUND = 32
"""Trials that the average is taken over."""
EXACT_MAX = 8
"""With more parameters than that, orders of them are sampled instead of all sets computed."""
_SETS_MAX = 500
"""Sets of parameters that are evaluated where they are sampled, about."""
_BATCH = 4_000


@dataclass(frozen=True, slots=True)
class ParameterEffect:
    """What one parameter did."""

    name: str
    amount: float
    """By how much it moved the predicted value, in the objective's units."""
    exists: bool
    """Whether the trial has it: one that does not may matter too."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """A predicted value as an average and what each parameter adds to it."""

    average: float
    """What the model expects of the study's trials on average."""
    predicted: float
    """What it expects of this trial: the average and all parts."""
    deviation: float
    """How unsure the model is of that, as a standard deviation; without the noise of a single result."""
    parts: tuple[ParameterEffect, ...]
    """The largest first."""
    learned: int
    """Trials that the model has learned from."""
    is_exact: bool
    """Whether all sets of parameters were computed."""


def attribute(surface: ModelSurface, params: Mapping[str, Any]) -> Attribution:
    """Split a configuration's predicted value among its parameters. The same for the same model, always."""
    point, others, names = (
        surface.encode(params),
        surface.observed(BACKGROUND),
        surface.names,
    )

    def worth(sets: np.ndarray) -> np.ndarray:
        """What is expected when the parameters of a set are as here, and the others as in other trials, on average."""
        points = np.vstack([surface.mixed(chosen, point, others) for chosen in sets])
        means = np.concatenate([surface.mean(points[i : i + _BATCH]) for i in range(0, len(points), _BATCH)])
        averaged: np.ndarray = means.reshape(len(sets), len(others)).mean(axis=1)
        return averaged

    amounts = shapley(worth, len(names))
    ends = worth(np.array([np.zeros(len(names), dtype=bool), np.ones(len(names), dtype=bool)]))
    order = np.argsort(-np.abs(amounts), kind="stable")
    return Attribution(
        average=float(ends[0]),
        predicted=float(ends[1]),
        deviation=surface.deviation(point),
        parts=tuple(ParameterEffect(names[i], float(amounts[i]), names[i] in params) for i in order),
        learned=len(surface),
        is_exact=len(names) <= EXACT_MAX,
    )


def shapley(
    worth: Callable[[np.ndarray], np.ndarray],
    players: int,
    seed: int = 0,
) -> np.ndarray:
    """What each player adds on average over the orders in which they may join; shape (players,).

    Args:
        worth: of sets of players, boolean masks of shape (sets, players).
        players: how many there are.
        seed: of the orders, where there are too many to take all.
    """
    return _exact(worth, players) if players <= EXACT_MAX else _sampled(worth, players, seed)


def _exact(worth: Callable[[np.ndarray], np.ndarray], players: int) -> np.ndarray:
    codes = np.arange(2**players)
    sets = (codes[:, None] >> np.arange(players)) & 1 == 1
    worths, sizes = worth(sets), sets.sum(axis=1)
    # how many of the orders have a set of that size right before one player
    shares = np.array([factorial(k) * factorial(players - 1 - k) / factorial(players) for k in range(players)])
    amounts = np.zeros(players)
    for player in range(players):
        without = codes[~sets[:, player]]
        amounts[player] = (shares[sizes[without]] * (worths[without | (1 << player)] - worths[without])).sum()
    return amounts


def _sampled(
    worth: Callable[[np.ndarray], np.ndarray],
    players: int,
    seed: int,
) -> np.ndarray:
    """Over random orders, each together with its reverse (Mitchell et al. 2022, "Sampling permutations")."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(players) for _ in range(max(2, _SETS_MAX // (2 * (players + 1))))]
    both = [order for one in orders for order in (one, one[::-1])]
    joined = np.array([np.argsort(order) for order in both])  # when each player joins
    sets = np.vstack([ranks[None] < np.arange(players + 1)[:, None] for ranks in joined])
    steps = np.diff(worth(sets).reshape(len(both), players + 1), axis=1)
    return np.asarray(np.take_along_axis(steps, joined, axis=1).mean(axis=0))
