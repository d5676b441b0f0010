"""Audit of a pruner: a small random share of the trials that it would stop runs on.

The audited trials follow from seed and trial number alone, so a restart selects the same ones. The
overruled decision, and the best value at that time, are stored on the trial: they cannot be
computed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import betaincinv

from tunesvc.space.directions import orient_each
from tunesvc.util.optuna_internals import set_system_attr

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


def check_options(chance: float, startup: int, audit: float) -> None:
    """Check the options of a pruner that stops trials with a small chance to end best.

    Raises:
        ValueError: a share is not between 0 and 1, or `startup` is below 1.
    """
    for name, share in (("chance", chance), ("audit", audit)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} ({share}) is a probability: at least 0, below 1")
    if startup < 1:
        text = f"startup ({startup}) is how many trials finish before one is stopped"
        raise ValueError(f"{text}: at least 1")


def is_audited(seed: int, number: int, share: float) -> bool:
    """Return True if the trial runs on when the pruner would stop it."""
    return bool(np.random.default_rng([seed, number]).random() < share)


def runs_on(
    study: Study,
    trial: FrozenTrial,
    decision: Callable[[], Mapping[str, Any]],
    is_poor: bool,
    share: float,
    seed: int,
) -> bool:
    """Return True if the trial runs on as an audit, and record the decision of a new audit.

    Args:
        study: of the trial.
        trial: the trial to decide on.
        decision: returns the data of `AUDIT`.
        is_poor: True if the pruner would stop it.
        share: of such trials that run on.
        seed: selects them.
    """
    if AUDIT in trial.system_attrs:
        return True
    if not is_poor or not is_audited(seed, trial.number, share):
        return False
    set_system_attr(study, trial, AUDIT, decision())
    return True


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
