"""The audit of a pruner: a small random share of the trials it would stop finishes anyway, and tells how often it errs.

Which trials are audited follows from seed and trial number alone, so a restart decides alike. That a verdict was
overruled, and what the best value was then, is kept on the trial: it cannot be told afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import betaincinv

from tunesvc.search.tracking.objectives import orient_each

AUDIT = "tunesvc:audit"
"""System attribute of an audited trial: {"step", "chance", "best"} of the verdict that was overruled; with several
objectives "front", the values of its members, in the place of "best"."""


@dataclass(frozen=True, slots=True)
class FalsePrunes:
    """How often trials that would have been stopped ended better than the best of then, or extended its front."""

    audited: int
    """Trials that the pruner wanted stopped, and that were let finish."""
    wrong: int
    rate: float
    """NaN without an audited trial."""
    low: float
    high: float
    """Ends of the 95 % interval of Clopper and Pearson (1934)."""


def is_audited(seed: int, number: int, share: float) -> bool:
    """Whether the trial of this number would be let finish if the pruner wanted it stopped."""
    return bool(np.random.default_rng([seed, number]).random() < share)


def false_prunes(
    trials: Iterable[FrozenTrial],
    *directions: StudyDirection,
) -> FalsePrunes:
    """The measured false-prune rate of a study. Audited trials that have not finished do not count."""
    finished = (trial for trial in trials if AUDIT in trial.system_attrs and trial.state == TrialState.COMPLETE)
    return measured(
        ((trial.values, trial.system_attrs[AUDIT]) for trial in finished),
        *directions,
    )


def measured(
    ends: Iterable[tuple[Sequence[float], Mapping[str, Any]]],
    *directions: StudyDirection,
) -> FalsePrunes:
    """The rate among audited trials, told by their values and by what `AUDIT` kept of them."""
    orientations = orient_each(directions)
    verdicts = [bool((orientations * values < orientations * _front(kept)).any(axis=1).all()) for values, kept in ends]
    n, wrong = len(verdicts), sum(verdicts)
    low = float(betaincinv(wrong, n - wrong + 1, 0.025)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, n - wrong, 0.975)) if wrong < n else 1.0
    return FalsePrunes(n, wrong, wrong / n if n else float("nan"), low, high)


def _front(kept: Mapping[str, Any]) -> np.ndarray:
    """Rows to be better than, each in one objective at least."""
    return np.array(kept["front"] if "front" in kept else [[kept["best"]]], dtype=float)
