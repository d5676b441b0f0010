"""Importance of each parameter for reaching the best trials, with an interval. Pure.

PED-ANOVA (Watanabe, Bansal, Hutter, "PED-ANOVA", IJCAI 2023): importance is the Pearson divergence
between a parameter's distribution in the best trials and in all trials. Resampling the trials gives
the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TRIALS_MIN = 10
"""Fewest complete trials for a result."""
_TOP = 0.1
_BINS = 50
_ROUNDS = 60
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Share:
    """Importance of a parameter, as a share of the total."""

    name: str
    share: float
    low: float
    high: float
    """Bounds of the interval that holds nine of ten resampled studies."""


def importances(
    names: Sequence[str],
    columns: Sequence[np.ndarray],
    choices: Sequence[int],
    losses: np.ndarray,
) -> tuple[Share, ...]:
    """Return the parameters' shares, which sum up to 1; empty with too few trials.

    Args:
        names: of the parameters.
        columns: values of each parameter: 0 to 1, or indices of choices; NaN where absent.
        choices: number of choices of each; 0 for a number.
        losses: of the trials.
    """
    kept = np.isfinite(losses)
    if kept.sum() < TRIALS_MIN or not names:
        return ()
    losses = losses[kept]
    weights = _resampled(len(losses))
    best = _best_of(losses, weights)
    divergences = []
    for column, count in zip(columns, choices, strict=True):
        divergences.append(_divergence(column[kept], count, weights, best))
    stacked = np.stack(divergences)
    total = stacked.sum(axis=0)
    shares = stacked / np.where(total > 0, total, 1.0)
    lows, highs = np.quantile(shares[:, 1:], _INTERVAL, axis=1)
    return tuple(
        Share(name, float(s[0]), float(low), float(high))
        for name, s, low, high in zip(names, shares, lows, highs, strict=True)
    )


def _resampled(n: int) -> np.ndarray:
    """Return each trial's count in each round; 1 in the first. Shape (rounds, n)."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=_ROUNDS)
    return np.vstack([np.ones(n), drawn])


def _best_of(losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weights of the trials among the best tenth of their round, and 0 for others."""
    order = np.argsort(losses, kind="stable")
    before = np.cumsum(weights[:, order], axis=1) - weights[:, order]
    count = np.maximum(_TOP * len(losses), 3.0)
    out = np.zeros_like(weights)
    out[:, order] = np.where(before < count, weights[:, order], 0.0)
    return out


def _divergence(
    column: np.ndarray,
    choices: int,
    weights: np.ndarray,
    best: np.ndarray,
) -> np.ndarray:
    """Return the divergence in each round, scaled by the share of trials with the parameter."""
    has = ~np.isnan(column)
    if has.sum() < 2:
        return np.zeros(len(weights))
    bins = choices or _BINS
    if choices:
        indices = column[has].astype(int)
    else:
        binned = (column[has].clip(0, 1) * bins).astype(int)
        indices = np.minimum(binned, bins - 1)
    one_hot = np.zeros((len(indices), bins))
    one_hot[np.arange(len(indices)), indices] = 1.0
    everywhere = _density(weights[:, has] @ one_hot, choices)
    there = _density(best[:, has] @ one_hot, choices)
    squared = everywhere * (there / everywhere - 1.0) ** 2
    out: np.ndarray = squared.sum(axis=1) * has.mean()
    return out


def _density(counts: np.ndarray, choices: int) -> np.ndarray:
    """Return bins as probabilities, smoothed for numbers, with one trial spread evenly."""
    n = counts.sum(axis=1, keepdims=True)
    bins = counts.shape[1]
    if not choices:
        counts = _smoothed(counts, n[:, 0])
    out: np.ndarray = (counts + 1.0 / bins) / (n + 1.0)
    return out


def _smoothed(counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Smooth by a Gaussian of Scott's width in the first round, cut off at the borders."""
    bins = counts.shape[1]
    at = (np.arange(bins) + 0.5) / bins
    share = counts[0] / max(n[0], 1.0)
    deviation = np.sqrt(max(share @ at**2 - (share @ at) ** 2, 0.0))
    width = max(1.06 * deviation * max(n[0], 1.0) ** -0.2, 1.0 / bins)
    kernel = np.exp(-0.5 * ((at[:, None] - at[None, :]) / width) ** 2)
    out: np.ndarray = counts @ (kernel / kernel.sum(axis=1, keepdims=True))
    return out
