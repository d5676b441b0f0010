"""Effects of single parameters and of pairs, by a model of the study.

A parameter's effect is its partial dependence (Friedman 2001): the model's mean over the trials
with that parameter changed. A pair's interaction is what the partial dependence of both has beyond
the sum of their own (Friedman and Popescu 2008, "Predictive Learning via Rule Ensembles"). Both are
given as their typical size over the trials, in the objective's units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tunesvc.search.analysis.model_surface import ModelSurface

PARAMETERS_MAX = 8
"""Most parameters, those with the largest effects, of which pairs are taken."""
_TRIALS = 32
"""Trials that effects are averaged over."""


@dataclass(frozen=True, slots=True)
class InteractionEffects:
    """Typical effects of parameters and of pairs."""

    names: tuple[str, ...]
    """Parameters, the one with the largest effect first."""
    sizes: np.ndarray
    """Shape (parameters, parameters), symmetric: own effects on the diagonal, interactions beside.

    Root mean squares over the trials, in the objective's units.
    """

    def pairs(self) -> Iterator[tuple[str, str, float]]:
        """Yield pairs of parameters with their interaction, the largest first."""
        found = [
            (self.names[i], self.names[j], float(self.sizes[i, j]))
            for i, j in combinations(range(len(self.names)), 2)
        ]
        yield from sorted(found, key=lambda pair: -pair[2])


def interaction_effects(surface: ModelSurface) -> InteractionEffects:
    """Return the effects; deterministic for a model."""
    points = surface.observed(_TRIALS)
    own = [_dependence(surface, points, [j]) for j in range(len(surface.names))]
    order = np.argsort([-_size(one) for one in own], kind="stable")[:PARAMETERS_MAX]
    sizes = np.diag([_size(own[j]) for j in order])
    for a, b in combinations(range(len(order)), 2):
        i, j = order[a], order[b]
        both = _dependence(surface, points, [i, j])
        sizes[a, b] = sizes[b, a] = _size(both - own[i] - own[j])
    return InteractionEffects(tuple(surface.names[j] for j in order), sizes)


def _dependence(
    surface: ModelSurface,
    points: np.ndarray,
    parameters: list[int],
) -> np.ndarray:
    """Return the centred partial dependence at each point; shape (points,)."""
    selected = np.zeros(len(surface.names), dtype=bool)
    selected[parameters] = True
    mixed = np.vstack([surface.mixed(selected, point, points) for point in points])
    means = surface.mean(mixed).reshape(len(points), -1).mean(axis=1)
    centred: np.ndarray = means - means.mean()
    return centred


def _size(effects: np.ndarray) -> float:
    return float(np.sqrt((effects**2).mean()))
