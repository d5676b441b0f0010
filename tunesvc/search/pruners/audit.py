"""Audit of a pruner: a small random share of the trials that it would stop runs on.

The audited trials follow from seed and trial number alone, so a restart selects the same ones. The
overruled decision, and the best value at that time, are stored on the trial: they cannot be
computed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import betaincinv

from tunesvc.space.directions import orient_each

AUDIT = "tunesvc:audit"
"""System attribute of an audited trial: {"step", "chance", "best"} of the overruled decision. With
several objectives "front", the values of the front's members, replaces "best"."""


@dataclass(frozen=True, slots=True)
class FalsePrunes:
    """Share of audited trials that beat the best at the decision, or extended its front."""

    audited: int
    """Trials that the pruner would have stopped, and that finished."""
    wrong: int
    rate: float
    """NaN without audited trials."""
    low: float
    high: float
    """Bounds of the 95 % interval of Clopper and Pearson (1934)."""


def is_audited(seed: int, number: int, share: float) -> bool:
    """Return True if the trial runs on when the pruner would stop it."""
    return bool(np.random.default_rng([seed, number]).random() < share)


def false_prunes(
    trials: Iterable[FrozenTrial],
    *directions: StudyDirection,
) -> FalsePrunes:
    """Measure the false-prune rate of a study. Unfinished audited trials do not count."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    finished = [trial for trial in complete if AUDIT in trial.system_attrs]
    ends = [(trial.values, trial.system_attrs[AUDIT]) for trial in finished]
    return measured(ends, *directions)


def measured(
    ends: Iterable[tuple[Sequence[float], Mapping[str, Any]]],
    *directions: StudyDirection,
) -> FalsePrunes:
    """Measure the rate from audited trials' values and their `AUDIT` attributes."""
    orientations = orient_each(directions)
    verdicts = []
    for values, audit in ends:
        is_better = orientations * values < orientations * _front(audit)
        verdicts.append(bool(is_better.any(axis=1).all()))
    n, wrong = len(verdicts), sum(verdicts)
    low = float(betaincinv(wrong, n - wrong + 1, 0.025)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, n - wrong, 0.975)) if wrong < n else 1.0
    return FalsePrunes(n, wrong, wrong / n if n else float("nan"), low, high)


def _front(audit: Mapping[str, Any]) -> np.ndarray:
    """Return rows of values, each of which must be beaten in at least one objective."""
    return np.array(
        audit["front"] if "front" in audit else [[audit["best"]]],
        dtype=float,
    )
