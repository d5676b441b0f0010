"""Partial dependence of the objective on one parameter, by the model of a study.

The partial dependence (J. H. Friedman, "Greedy function approximation: a gradient boosting
machine", Annals of Statistics 29, 2001) is the model's mean over the other parameters. These are
drawn from the search space, each on the scale on which it is searched, and not from the trials:
those crowd near the optimum (Moosbauer et al., "Explaining Hyperparameter Optimization via Partial
Dependence Plots", NeurIPS 2021). Its band is the model's uncertainty about that mean, from joint
draws, so that it widens where few trials were. The curves of single configurations are individual
conditional expectations (Goldstein et al. 2015): where they cross, parameters interact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesvc.search.analysis.model_surface import Slice2D

if TYPE_CHECKING:
    from tunesvc.search.analysis.model_surface import ModelSurface

PLACES = 25
"""Most values of a parameter."""
PAIR_PLACES = 15
"""Most values of each of two parameters."""
OTHERS = 64
"""Configurations of the other parameters that the mean is taken over."""
CURVES = 12
"""Single configurations whose curves are kept."""
COVERED = 0.95
"""Probability of the band at each value."""
_DRAWS = 200
_SEED = 0


@dataclass(frozen=True, slots=True)
class PartialDependence:
    """Mean of the objective along one parameter, in the objective's units."""

    name: str
    places: tuple[Any, ...]
    """Values of the parameter."""
    mean: np.ndarray
    """Shape (places,)."""
    low: np.ndarray
    """Lower bound of the band of 95 %."""
    high: np.ndarray
    curves: np.ndarray
    """Means of single configurations; shape (curves, places)."""
    share: float
    """Share of the space in which the parameter exists: the others are drawn from that part."""

    @property
    def size(self) -> float:
        """Difference between its largest and smallest mean."""
        return float(np.ptp(self.mean))


def partial_dependence(surface: ModelSurface, name: str) -> PartialDependence | None:
    """Return the partial dependence on a parameter; deterministic for a model.

    None for a parameter that exists nowhere in the space, or that the model does not have.
    """
    if name not in surface.names:
        return None
    rng = np.random.default_rng(_SEED)
    others, share = surface.others([name], OTHERS, rng)
    if not len(others):
        return None
    places, values = surface.places(name, PLACES)
    normals = rng.standard_normal((len(others), _DRAWS))
    means, lows, highs = [], [], []
    for place in places:
        points = surface.placed(others, {name: float(place)})
        means.append(surface.mean(points))
        drawn = surface.draws(points, normals).mean(axis=0)
        low, high = np.quantile(drawn, [(1 - COVERED) / 2, (1 + COVERED) / 2])
        lows.append(low)
        highs.append(high)
    by_place = np.array(means)
    return PartialDependence(
        name,
        values,
        by_place.mean(axis=1),
        np.array(lows),
        np.array(highs),
        by_place[:, :CURVES].T,
        share,
    )


def joint_dependence(surface: ModelSurface, first: str, second: str) -> Slice2D | None:
    """Return the partial dependence on two parameters; deterministic for a model.

    None for parameters that never exist together, or that the model does not have.
    """
    if first == second or not {first, second} <= set(surface.names):
        return None
    rng = np.random.default_rng(_SEED)
    others, _ = surface.others([first, second], OTHERS, rng)
    if not len(others):
        return None
    normals = rng.standard_normal((len(others), _DRAWS))
    across, up = surface.places(first, PAIR_PLACES), surface.places(second, PAIR_PLACES)
    shape = (len(up[0]), len(across[0]))
    mean, deviation = np.zeros(shape), np.zeros(shape)
    for row, column in np.ndindex(*shape):
        places = {first: float(across[0][column]), second: float(up[0][row])}
        points = surface.placed(others, places)
        mean[row, column] = surface.mean(points).mean()
        deviation[row, column] = surface.draws(points, normals).mean(axis=0).std()
    return Slice2D(across[1], up[1], mean, deviation)


def partial_dependences(surface: ModelSurface, names: Iterable[str]) -> list[PartialDependence]:
    """Return the partial dependences on parameters, the one that changes most first."""
    found = [partial_dependence(surface, name) for name in names]
    known = [one for one in found if one is not None]
    return sorted(known, key=lambda one: -one.size)
