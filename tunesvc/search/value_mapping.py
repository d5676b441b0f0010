"""Straight line from an earlier study's values to a study's own, fitted to shared configurations.

Two studies of one space rarely agree on values (another data set, longer training), but often on
the order of configurations. Configurations that were best before lie close together, so they say
little about the line's slope. The scatter around the line says more: it is taken to be
proportional to the slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection

_DEVIATION = 1.0
"""Prior deviation of the slope's logarithm:
spreads of two studies often differ by a factor of e."""
_SCATTER = 0.3
"""Scatter of a configuration about the line, in units of the earlier study's spread."""
_DOF = 4.0
"""Degrees of freedom of the scatter, a Student t: one configuration may be entirely different."""
_SLOPES = np.exp(np.linspace(-5.0, 5.0, 201))
_GOOD = 0.1


@dataclass(frozen=True, slots=True)
class ValueMapping:
    """value = shift + slope * earlier value."""

    shift: float = 0.0
    slope: float = 1.0

    def __call__(self, value: float) -> float:
        """Map an earlier study's value to this study."""
        return self.shift + self.slope * value

    @staticmethod
    def of(
        pairs: Sequence[tuple[float, float]],
        earlier: Sequence[float],
        direction: StudyDirection,
    ) -> ValueMapping:
        """Fit the line.

        The slope is the posterior mean of its logarithm, given a prior near 1. The line goes
        through the middle of the pairs.

        Args:
            pairs: (earlier value, value here) of the same configuration.
            earlier: all values of the earlier study.
        """
        if not pairs:
            return ValueMapping()
        known, here = np.array(pairs).T
        slope = _slope(
            known - known.mean(),
            here - here.mean(),
            _spread(earlier, direction),
        )
        return ValueMapping(float(here.mean() - slope * known.mean()), slope)


def _spread(values: Sequence[float], direction: StudyDirection) -> float:
    """Return the distance from the median to the bound of the best tenth."""
    bound, middle = np.quantile(
        values,
        [_GOOD if direction == StudyDirection.MINIMIZE else 1 - _GOOD, 0.5],
    )
    return float(abs(middle - bound)) or 1.0


def _slope(known: np.ndarray, here: np.ndarray, spread: float) -> float:
    """Return the slope; both arrays are centred, which takes one degree of freedom."""
    off = (here / _SLOPES[:, None] - known) / (_SCATTER * spread)
    log_likelihood = -0.5 * (_DOF + 1) * np.log1p(off**2 / _DOF).sum(axis=1)
    log_slopes = np.log(_SLOPES)
    log_prior = 0.5 * (log_slopes / _DEVIATION) ** 2
    log_posterior = log_likelihood - (len(known) - 1) * log_slopes - log_prior
    weights = np.exp(log_posterior - log_posterior.max())
    return float(np.exp(weights @ np.log(_SLOPES) / weights.sum()))
