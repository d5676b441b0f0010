"""Values that running trials may have once they finish, so that many trials at a time differ.

If each running trial had its expected value, nothing better than now would be expected beside it,
but the next trial would be proposed there again: the doubt has gone and the gain has not. So
acquisition values are averaged over outcomes that are drawn jointly (Snoek, Larochelle and Adams
2012, "Practical Bayesian optimization of machine learning algorithms", 3.2), and in each of them a
running trial that came out well is what the next one has to beat (Wilson, Hutter and Deisenroth
2018, "Maximizing acquisition functions for Bayesian optimization", the greedy form).
"""

from __future__ import annotations

import numpy as np

from tunesvc.search.samplers.gp.acquisitions.acquisition import Incumbents
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.gp_model import Posterior

_DRAWS = 16
"""Outcomes of all running trials together."""


def imagine(
    posterior: Posterior,
    candidates: np.ndarray,
    running: np.ndarray,
    feasibility: Feasibility | None,
    rng: np.random.Generator,
) -> tuple[Posterior, Incumbents]:
    """Return the posterior with drawn outcomes of running trials, and the best points in each.

    Args:
        posterior: of the function, with running trials as the last observations.
        candidates: points that may be recommended now; shape (n, parameters).
        running: points of running trials, at least one; shape (m, parameters).
        feasibility: models of constraints, if any was violated.
        rng: of the draws.
    """
    imagined = posterior.imagined(rng.standard_normal((len(running), _DRAWS)))
    rivals = np.vstack([candidates, running])
    means = imagined.mean(rivals)
    if feasibility is not None:
        kept = np.exp(feasibility.log_probability(running))
        is_kept = rng.random((len(running), _DRAWS)) < kept[:, None]
        means[len(candidates) :][~is_kept] = np.inf
    return imagined, Incumbents.of(rivals, means)
