"""Effects of folds or repeats on all trials alike, and the variance of what remains of each trial.

The variance of the rests is shared over trials by empirical Bayes: a scaled inverse chi-square
prior is fitted to the variances of finished trials (Smyth 2004, "Linear models and empirical Bayes
methods for assessing differential expression", section 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

FINISHED_MIN = 3
"""Fewest complete trials for a forecast, and in their better half."""
_DOF_MIN, _DOF_MAX = 3.0, 60.0
"""Bounds of the prior's degrees of freedom: few trials tell little about them."""
_ROUNDS = 50
"""Alternations between means and effects; one suffices if each trial has all folds."""


@dataclass(frozen=True, slots=True)
class BlockEffects:
    """Effects of folds on all trials alike, and the prior of a trial's own variance."""

    effects: np.ndarray
    """Difference of losses on each fold to the mean over all; shape (folds,)."""
    variance: float
    """Prior variance of a trial's loss on a fold, its mean and the fold's effect removed."""
    dof: float
    """Degrees of freedom of that prior."""
    trials: int
    """Number of trials that this was learned from."""


def learn_effects(blocks: np.ndarray, losses: np.ndarray, count: int) -> BlockEffects | None:
    """Return effects and variances by the better half of complete trials; None if they are too few.

    Where trials have their folds in turns, all count: half of them may not link the folds.

    Args:
        blocks: folds of each trial; shape (trials, folds of a trial).
        losses: on them; of the same shape.
        count: number of folds.
    """
    if len(losses) < FINISHED_MIN:
        return None
    if blocks.shape[1] == count:
        half = max(FINISHED_MIN, math.ceil(len(losses) / 2))
        chosen = np.argsort(losses.mean(axis=1), kind="stable")[:half]
        blocks, losses = blocks[chosen], losses[chosen]
    trials, steps = losses.shape
    dof = trials * (steps - 1) - (count - 1)
    if dof < 1:
        return None
    effects = np.zeros(count)
    times = np.maximum(np.bincount(blocks.ravel(), minlength=count), 1)
    for _ in range(_ROUNDS):
        rests = losses - (losses - effects[blocks]).mean(axis=1, keepdims=True)
        effects = np.bincount(blocks.ravel(), rests.ravel(), minlength=count) / times
        effects -= effects.mean()
    rests = losses - effects[blocks]
    variances = rests.var(axis=1, ddof=1) * trials * (steps - 1) / dof
    variance, prior_dof = shared_variance(variances, steps - 1)
    prior_dof = min(max(min(prior_dof, dof), _DOF_MIN), _DOF_MAX)
    return BlockEffects(effects, variance, prior_dof, trials)


def shared_variance(variances: np.ndarray, dof: int) -> tuple[float, float]:
    """Return variance and degrees of freedom of the prior from which variances come.

    By moments of their logarithms, as in Smyth (2004). Infinite degrees of freedom mean that the
    variances differ by chance only.

    Args:
        variances: of samples; shape (samples,).
        dof: degrees of freedom of each.
    """
    mean = float(variances.mean())
    if mean <= 0:
        return 0.0, math.inf
    logs = np.log(np.maximum(variances, 1e-4 * mean)) - digamma(dof / 2) + math.log(dof / 2)
    excess = float(logs.var(ddof=1)) - float(polygamma(1, dof / 2))
    if excess <= 0:
        return mean, math.inf
    prior_dof = 2 * _inverse_trigamma(excess)
    centre = float(logs.mean()) + float(digamma(prior_dof / 2)) - math.log(prior_dof / 2)
    return math.exp(centre), prior_dof


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value by Newton's method, which converges from below for 1/x."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        change = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += change
        if -change / x < 1e-8:
            break
    return x
