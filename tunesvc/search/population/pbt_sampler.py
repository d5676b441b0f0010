"""Exploration of population-based training: a parent's parameters, perturbed or resampled.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.population.member_sampler import MemberSampler
from tunesvc.search.samplers.gp.model.domain import Domain


class PbtSampler(MemberSampler):
    """Multiplies or divides a parent's numbers by a factor, or resamples them.

    A number whose range reaches 0 or below is shifted instead. Choices that are numbers move to a
    neighbour; other choices stay unless they are resampled.
    """

    version = "pbt 1"

    def explore(
        self,
        study: Study,
        trial: FrozenTrial,
        parent: FrozenTrial,
        domain: Domain,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the parameters of a copy, and words about how some of them were chosen."""
        fresh = domain.decode(domain.random(1, rng)[0])
        params, how = {}, {}
        for name, kind in domain.distributions.items():
            is_new = rng.random() < self._search.resample
            is_up = bool(rng.random() < 0.5)
            if name not in parent.params or is_new:
                params[name], how[name] = fresh[name], "resampled"
            else:
                params[name] = self._perturbed(kind, parent.params[name], is_up=is_up)
        return params, how

    def _perturbed(self, kind: BaseDistribution, value: Any, *, is_up: bool) -> Any:
        if isinstance(kind, CategoricalDistribution):
            return _neighbour(kind, value, is_up=is_up)
        low: float = kind.low  # type: ignore[attr-defined]
        width: float = kind.high - low  # type: ignore[attr-defined]
        if low > 0:
            moved = value * self._search.factor if is_up else value / self._search.factor
        else:
            moved = value + (1 if is_up else -1) * width * (self._search.factor - 1) / 2
        step: float = getattr(kind, "step", None) or 0.0
        if abs(moved - value) < step:
            moved = value + (step if is_up else -step)
        domain = Domain({"": kind})
        return domain.decode(domain.encode({"": moved}))[""]


def _neighbour(kind: CategoricalDistribution, value: Any, *, is_up: bool) -> Any:
    """Return the next larger or smaller choice if all are numbers; else the same."""
    numbers = [one for one in kind.choices if isinstance(one, (int, float))]
    if len(numbers) < len(kind.choices) or any(isinstance(one, bool) for one in numbers):
        return value
    ordered = sorted(numbers)
    place = ordered.index(value) + (1 if is_up else -1)
    return ordered[min(max(place, 0), len(ordered) - 1)]
