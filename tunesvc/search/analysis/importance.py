"""How much each parameter decides over whether a trial is among the best, and how sure that is. Pure.

PED-ANOVA (Watanabe, Bansal, Hutter, "PED-ANOVA", IJCAI 2023): a parameter matters as much as the best trials' values
of it are distributed otherwise than all trials' values, by the Pearson divergence. Resampling the trials says how
sure that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TRIALS_MIN = 10
"""With fewer complete trials there is nothing to tell."""
_TOP = 0.1
_BINS = 50
_ROUNDS = 60
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Share:
    """A parameter's share in the differences between trials."""

    name: str
    share: float
    low: float
    high: float
    """Ends of the interval in which nine of ten resampled studies lie."""


def importances(
    names: Sequence[str],
    places: Sequence[np.ndarray],
    choices: Sequence[int],
    losses: np.ndarray,
) -> tuple[Share, ...]:
    """The parameters' shares, which sum up to 1; nothing with too few trials.

    Args:
        names: of the parameters.
        places: each parameter's values: 0 ... 1, or places of choices; NaN where a trial does not have it.
        choices: how many choices each has; 0 for a number.
        costs: of the trials, small is good.
    """
    kept = np.isfinite(losses)
    if kept.sum() < TRIALS_MIN or not names:
        return ()
    losses = losses[kept]
    weights = _resampled(len(losses))
    best = _best_of(losses, weights)
    divergences = np.stack(
        [_divergence(column[kept], count, weights, best) for column, count in zip(places, choices, strict=True)]
    )
    total = divergences.sum(axis=0)
    shares = divergences / np.where(total > 0, total, 1.0)
    lows, highs = np.quantile(shares[:, 1:], _INTERVAL, axis=1)
    return tuple(
        Share(name, float(s[0]), float(low), float(high))
        for name, s, low, high in zip(names, shares, lows, highs, strict=True)
    )


def _resampled(n: int) -> np.ndarray:
    """How often each trial counts in each round; in the first, once. Shape (rounds, n)."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=_ROUNDS)
    return np.vstack([np.ones(n), drawn])


def _best_of(losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weights of those trials alone that are among the best tenth of their round."""
    order = np.argsort(losses, kind="stable")
    before = np.cumsum(weights[:, order], axis=1) - weights[:, order]
    wanted = np.maximum(_TOP * len(losses), 3.0)
    out = np.zeros_like(weights)
    out[:, order] = np.where(before < wanted, weights[:, order], 0.0)
    return out


def _divergence(
    column: np.ndarray,
    choices: int,
    weights: np.ndarray,
    best: np.ndarray,
) -> np.ndarray:
    """Of the best trials' values from all trials' values, in each round; counted by how many trials have it at all."""
    has = ~np.isnan(column)
    if has.sum() < 2:
        return np.zeros(len(weights))
    bins = choices or _BINS
    places = column[has].astype(int) if choices else np.minimum((column[has].clip(0, 1) * bins).astype(int), bins - 1)
    one_hot = np.zeros((len(places), bins))
    one_hot[np.arange(len(places)), places] = 1.0
    everywhere = _density(weights[:, has] @ one_hot, choices)
    there = _density(best[:, has] @ one_hot, choices)
    out: np.ndarray = (everywhere * (there / everywhere - 1.0) ** 2).sum(
        axis=1,
    ) * has.mean()
    return out


def _density(counts: np.ndarray, choices: int) -> np.ndarray:
    """Counts per bin as probabilities, numbers smoothed; one trial's worth is spread evenly. Shape (rounds, bins)."""
    n = counts.sum(axis=1, keepdims=True)
    bins = counts.shape[1]
    if not choices:
        counts = _smoothed(counts, n[:, 0])
    out: np.ndarray = (counts + 1.0 / bins) / (n + 1.0)
    return out


def _smoothed(counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """By a Gaussian of Scott's width in the first round, cut off at the borders."""
    bins = counts.shape[1]
    at = (np.arange(bins) + 0.5) / bins
    share = counts[0] / max(n[0], 1.0)
    deviation = np.sqrt(max(share @ at**2 - (share @ at) ** 2, 0.0))
    width = max(1.06 * deviation * max(n[0], 1.0) ** -0.2, 1.0 / bins)
    kernel = np.exp(-0.5 * ((at[:, None] - at[None, :]) / width) ** 2)
    out: np.ndarray = counts @ (kernel / kernel.sum(axis=1, keepdims=True))
    return out
