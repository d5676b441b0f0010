"""How a study's values follow from those of an earlier one: a straight line, learned from the few configurations that
both have run.

Two studies of one space rarely agree on values (another data set, a longer training), but often on the order of their
configurations. Configurations that were the best before lie close together, so they hardly tell the line's slope by
themselves. But how far their values here lie off it does: scatter is taken to be in proportion to the slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.study import StudyDirection

_DEVIATION = 1.0
"""Of the slope's logarithm, before anything is known: two studies whose spreads differ by a factor of e are usual."""
_SCATTER = 0.3
"""Of a configuration about the line, in units of the earlier study's spread: another task, and noise."""
_DOF = 4.0
"""Scatter is a Student t: one configuration may be entirely different."""
_SLOPES = np.exp(np.linspace(-5.0, 5.0, 201))
_GOOD = 0.1


@dataclass(frozen=True, slots=True)
class ValueMapping:
    """value = shift + slope * earlier value."""

    shift: float = 0.0
    slope: float = 1.0

    def __call__(self, value: float) -> float:
        """The value that an earlier one stands for here."""
        return self.shift + self.slope * value

    @staticmethod
    def of(
        pairs: Sequence[tuple[float, float]],
        earlier: Sequence[float],
        direction: StudyDirection,
    ) -> ValueMapping:
        """What relates them.

        The slope is the posterior mean of its logarithm, given that it is positive and probably near 1; the line goes
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
    """From the median to the bound of the best tenth."""
    bound, middle = np.quantile(
        values,
        [_GOOD if direction == StudyDirection.MINIMIZE else 1 - _GOOD, 0.5],
    )
    return float(abs(middle - bound)) or 1.0


def _slope(known: np.ndarray, here: np.ndarray, spread: float) -> float:
    """Both about their means, of which one is known by them: so many less one tell."""
    off = (here / _SLOPES[:, None] - known) / (_SCATTER * spread)
    log_likelihood = -0.5 * (_DOF + 1) * np.log1p(off**2 / _DOF).sum(axis=1)
    log_posterior = log_likelihood - (len(known) - 1) * np.log(_SLOPES) - 0.5 * (np.log(_SLOPES) / _DEVIATION) ** 2
    weights = np.exp(log_posterior - log_posterior.max())
    return float(np.exp(weights @ np.log(_SLOPES) / weights.sum()))
