"""Forecast of the improvement that further trials bring, with its uncertainty.

The best results of a study are the tail of what its search finds. Where that tail is exponential,
distances between its best values follow from one scale (A. Rényi, "On the theory of order
statistics", 1953), and the next record from that scale and the numbers of trials (N. Glick,
"Breaking records and breaking boards", American Mathematical Monthly 85, 1978). With n finished
trials and m more, the best value improves by more than g with probability
`r exp(-g/s) / (1 + r exp(-g/s))`, where r = m/n and s is the scale. Its uncertainty is that of the
few values that it is estimated from.

A sampler that learns sets records more often than chance and of smaller size; both errors nearly
cancel (`benchmarks/gains.py`). Forecasts by the Gaussian process were far less reliable there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GAIN_FORECAST_FROM = 20
"""Fewest finished trials for a forecast with an interval."""
BEST = 6
"""Best results that the scale is estimated from."""
COVERED = 0.9
"""Probability of the interval."""
_SCALES, _RECORDS = 200, 400
"""Quantiles of the scale, and of the gain in its units, that the forecast is averaged over."""


@dataclass(frozen=True, slots=True)
class GainForecast:
    """Improvement of the best observed value by further trials, in the objective's units."""

    trials: int
    """Further trials."""
    mean: float
    low: float
    """Lower bound of the interval of 90 %; mostly 0, no improvement."""
    high: float
    """Upper bound of that interval."""


def forecast_gain(losses: np.ndarray, finished: int, trials: int) -> GainForecast | None:
    """Forecast the improvement; deterministic. None while there is nothing to forecast from.

    Args:
        losses: of the trials that may be best, at least of the `BEST` best; small is good.
        finished: number of finished trials, pruned and failed ones too.
        trials: number of further trials.
    """
    finite = losses[np.isfinite(losses)]
    if finished < GAIN_FORECAST_FROM or len(finite) < BEST:
        return None
    gains = gain_quantiles(finite, finished, trials)
    if not 0 < gains[-1] < np.inf:
        return None
    tail = (1 - COVERED) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    return GainForecast(trials, float(gains.mean()), float(low), float(high))


def gain_quantiles(losses: np.ndarray, finished: int, trials: int) -> np.ndarray:
    """Return equally likely gains in ascending order; arguments as of `forecast_gain`."""
    best = np.sort(losses[np.isfinite(losses)])[:BEST]
    with np.errstate(over="ignore"):
        total = float((np.arange(1, BEST) * np.diff(best)).sum())
        gains = (total / _gamma_quantiles())[:, None] * _records(trials / finished)
    return np.sort(gains, axis=None)


def _gamma_quantiles() -> np.ndarray:
    """Return quantiles of the posterior of 1/s in units of the spacings' sum (Jeffreys' prior)."""
    from scipy.special import gammaincinv  # takes half a second to import

    shares = (np.arange(_SCALES) + 0.5) / _SCALES
    quantiles: np.ndarray = gammaincinv(BEST - 1, shares)
    return quantiles


def _records(ratio: float) -> np.ndarray:
    """Return quantiles of the gain in units of the scale, for so many further trials per trial."""
    exceeded = (np.arange(_RECORDS) + 0.5) / _RECORDS
    quantiles: np.ndarray = np.maximum(0.0, np.log(ratio * (1 - exceeded) / exceeded))
    return quantiles
