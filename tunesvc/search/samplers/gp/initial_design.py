"""Points that fill a search space evenly, for the first trials.

Separate from `domain`, because scipy.stats takes a third of a second to import and only samplers
need it.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from tunesvc.search.samplers.gp.model.domain import Domain


def spread(domain: Domain, number: int, seed: int) -> np.ndarray:
    """Return a point of a scrambled Sobol' sequence, which fills the box evenly.

    Shape (parameters,).
    """
    sequence = qmc.Sobol(max(len(domain), 1), seed=seed)
    if number:
        sequence.fast_forward(number)
    (point,) = domain.from_unit(sequence.random(1)[:, : len(domain)])
    return np.asarray(point)
