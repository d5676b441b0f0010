"""Tests of two configurations by their values on several random splits of the same data. Pure.

Splits share rows, so their values are correlated, and a plain t test finds differences far too
often. The variance is corrected as in the resampled t test of Nadeau and Bengio (2003, "Inference
for the generalization error", Machine Learning 52): by the ratio of validation to training rows,
which by time is the mean over the folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunesvc.search.analysis.samples import standard_error
from tunesvc.spec.goals import Goal, orient

PAIRS_MIN = 3
"""Fewest values for a test."""
_ROUNDING = 1e-12
"""Relative differences of values that count as rounding."""


def improvement_p_value(
    challenger: Sequence[float],
    champion: Sequence[float],
    goal: Goal,
    ratio: float,
) -> float | None:
    """Return the p-value of the paired one-sided test that the challenger is better.

    Args:
        challenger: values by split, NaN where the repeat failed.
        champion: values on the same splits.
        goal: `minimize` or `maximize`.
        ratio: validation rows per training row.

    Returns:
        None if there are too few pairs, or all differences are equal: such repeats show no noise.
    """
    gains = -orient(goal) * (np.asarray(challenger, float) - np.asarray(champion, float))
    gains = gains[np.isfinite(gains)]
    if len(gains) < PAIRS_MIN:
        return None
    size = float(np.nanmax(np.abs([*challenger, *champion])))
    if _are_equal(gains, size):
        return 1.0 if float(np.abs(gains).max()) <= _ROUNDING * size else None
    error = math.sqrt(float(gains.var(ddof=1)) * (1 / len(gains) + ratio))
    return _upper_tail(float(gains.mean()) / error, len(gains) - 1)


def degradation_p_value(
    before: Sequence[float],
    after: Sequence[float],
    goal: Goal,
    errors: tuple[float | None, float | None],
) -> float | None:
    """Return the p-value of Welch's one-sided test that a configuration is worse on later data.

    Args:
        before: values by split of the earlier data, NaN where the repeat failed.
        after: values by split of the later data.
        goal: `minimize` or `maximize`.
        errors: standard errors of both means, see `corrected_error`; None if unknown.

    Returns:
        None if there are too few values, or they show no noise.
    """
    samples = [np.asarray(values, float) for values in (before, after)]
    samples = [values[np.isfinite(values)] for values in samples]
    known = [error for error in errors if error is not None]
    if min(map(len, samples)) < PAIRS_MIN or len(known) < 2:
        return None
    old, new = samples
    size = float(np.abs(np.concatenate(samples)).max())
    variances = [error**2 for error in known]
    if sum(variances) <= (_ROUNDING * size) ** 2:
        return 1.0 if abs(float(new.mean() - old.mean())) <= _ROUNDING * size else None
    freedom = sum(variances) ** 2 / sum(
        one**2 / (len(values) - 1) for one, values in zip(variances, samples, strict=True)
    )
    loss = orient(goal) * float(new.mean() - old.mean())
    return _upper_tail(loss / math.sqrt(sum(variances)), freedom)


def corrected_error(values: Sequence[float], ratio: float) -> float | None:
    """Return the corrected standard error of the mean of values that are finite."""
    return standard_error([value for value in values if math.isfinite(value)], ratio)


def _are_equal(values: np.ndarray, size: float) -> bool:
    return float(np.ptp(values)) <= _ROUNDING * size


def _upper_tail(statistic: float, freedom: float) -> float:
    from scipy.special import stdtr  # slow to import

    return float(stdtr(freedom, -statistic))
