"""Fitted hyperparameters by their data: several workers ask with the same trials."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, fit
from tunesvc.search.samplers.gp.model.observations import Observations

_FITS_MAX = 40
"""Cached fits: of each objective's values, of their logarithms and of constraints, now and at the
last milestone."""


class FitCache:
    """The latest fits of one sampler."""

    def __init__(self) -> None:
        self._fits: OrderedDict[bytes, Hyperparameters] = OrderedDict()

    def of(self, seen: Observations, domain: Domain) -> Hyperparameters:
        """Return the hyperparameters of an objective."""
        return self._fit(seen.points, seen.values, seen.variances, seen.seeds, domain)

    def of_constraint(
        self, points: np.ndarray, values: np.ndarray, domain: Domain
    ) -> Hyperparameters:
        """Return the hyperparameters of a constraint, which may jump.

        Effects of training seeds on it are not modelled.
        """
        count = len(points)
        return self._fit(points, values, np.zeros(count), np.arange(count), domain, jumps=True)

    def _fit(
        self,
        points: np.ndarray,
        values: np.ndarray,
        variances: np.ndarray,
        seeds: np.ndarray,
        domain: Domain,
        *,
        jumps: bool = False,
    ) -> Hyperparameters:
        arrays = (points, values, variances, seeds, domain.decides, domain.is_source)
        key = b"".join(array.tobytes() for array in arrays) + bytes([jumps])
        known = self._fits.get(key)
        if known is None:
            known = self._fits[key] = fit(
                points,
                values,
                variances,
                domain.choices,
                seeds,
                decides=domain.decides,
                is_source=domain.is_source,
                jumps=jumps,
            )
            while len(self._fits) > _FITS_MAX:
                self._fits.popitem(last=False)
        return known
