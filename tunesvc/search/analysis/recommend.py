"""Which trial a study recommends.

Of several hundred noisy results the best one is mostly lucky: its true value is worse than it looks. The trial to
recommend is the one that is best by what is believed about all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from tunesvc.search.tracking.objectives import is_feasible, orient
from tunesvc.spec.model import Goal
from tunesvc.util.formatting import number

if TYPE_CHECKING:
    from tunesvc.search.analysis.finalists import Finalist
    from tunesvc.search.samplers.gp.fitted import PosteriorSummary

VERSION = 1
"""Raise it when the same trials get another recommendation: stored ones are then computed again."""
TRIALS_MIN = 10
"""With fewer complete trials the best observed value is all there is to go by."""

_ALIKE = 3e-3
"""Posterior means that differ by less, of values with variance 1, differ by the model's rounding."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The trial to take."""

    number: int
    mean: float
    """Its expected value: the posterior mean of the model, or the mean of its repeats."""
    deviation: float | None
    """Standard deviation of that belief; None when nothing is known of it."""
    luckiest: int
    """The trial with the best observed value; the recommended one if it has that value too."""
    confirmed: Finalist | None = None
    """Its repeats with other seeds, of which `mean` is the mean then; None while it was not confirmed."""
    is_apart: bool = True
    """Whether it differs from the luckiest by more than their deviations, or their repeats say so."""

    def __str__(self) -> str:
        return f"trial {self.number}: {self.describe() or f'observed {number(self.mean)}'}"

    @property
    def luck(self) -> str:
        """What to think of the best observed value, where that is another trial's: it has that value, LUCK."""
        return "which is probably a lucky draw" if self.is_apart else "but the two cannot be told apart"

    def describe(self, shared_seeds: int | None = None) -> str:
        """Return the evidence for its value in words; empty when there is only the observed value.

        Args:
            shared_seeds: how many training seeds the study's trials share.
        """
        if (found := self.confirmed) is not None:
            low, high = number(found.low), number(found.high)
            chance = "" if found.chance is None else f", {found.chance:.0%} to be the best finalist"
            return f"confirmed by {len(found.values)} repeats: {number(self.mean)} (95 %: {low} … {high}{chance})"
        if self.deviation is None:
            return ""
        over = "" if shared_seeds is None else f" over {shared_seeds} seeds"
        return f"expected {number(self.mean)} ± {self.deviation:.2g}{over}"


def recommend(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_seeds: int | None = None,
) -> Recommendation | None:
    """The trial to take of a study of one objective, or None when none is complete and feasible.

    By the posterior mean of a Gaussian process over all complete trials; of less than ten the best observed. What each
    of `shared_seeds` training seeds does to all trials alike is taken out.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    if not candidates:
        return None
    summary = _summary(candidates, goal, shared_seeds)
    if summary is None:
        first = _by_observed(candidates, goal)[0]
        return Recommendation(first.number, first.values[0], None, first.number)
    best, mean, deviation = _best_by_posterior(summary)
    luckiest = luckiest_beside(best, candidates, goal)
    params = next(one.params for one in candidates if one.number == luckiest)
    (other,), (its_deviation,) = summary.predict(summary.domain.encode(params)[None])
    is_apart = bool(abs(other - mean) >= math.hypot(deviation, its_deviation))
    return Recommendation(best, mean, deviation, luckiest, is_apart=is_apart)


def luckiest_beside(number: int, trials: Sequence[FrozenTrial], goal: Goal) -> int:
    """The trial with the best observed value; the one of this number if it has that value too."""
    candidates = [trial for trial in trials if is_candidate(trial)]
    luckiest = _by_observed(candidates, goal)[0]
    is_as_good = any(trial.number == number and trial.values == luckiest.values for trial in candidates)
    return number if is_as_good else luckiest.number


def _by_observed(candidates: Sequence[FrozenTrial], goal: Goal) -> list[FrozenTrial]:
    orientation = orient(goal)
    return sorted(candidates, key=lambda trial: (orientation * trial.values[0], trial.number))


def ranked(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_seeds: int | None = None,
) -> list[int]:
    """Trials by what is believed of them, the best first: of each configuration the first one, of many a choice.

    The first is the one that `recommend` names.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    summary = _summary(candidates, goal, shared_seeds)
    if summary is None:
        return [trial.number for trial in _by_observed(candidates, goal)]
    numbers, configurations = (
        summary.seen.numbers,
        [point.tobytes() for point in summary.seen.points],
    )
    first = {configurations[place]: int(numbers[place]) for place in np.argsort(-numbers)}
    return list(dict.fromkeys(first[configurations[place]] for place in _in_order(summary)))


def _summary(
    candidates: Sequence[FrozenTrial],
    goal: Goal,
    shared_seeds: int | None,
) -> PosteriorSummary | None:
    if len(candidates) < TRIALS_MIN:
        return None
    # It imports SciPy, which takes half a second: `tune best` often needs no model.
    from tunesvc.search.samplers.gp.fitted import fit_posterior

    return fit_posterior(candidates, goal, shared_seeds)


def _best_by_posterior(summary: PosteriorSummary) -> tuple[int, float, float]:
    """Number, posterior mean and deviation."""
    points = summary.seen.points
    best = points[_in_order(summary)[0]]
    same = (points == best).all(
        axis=1,
    )  # the first measurement of a configuration stands for it
    (mean,), (deviation,) = summary.predict(best[None])
    return int(summary.seen.numbers[same].min()), float(mean), float(deviation)


def _in_order(summary: PosteriorSummary) -> np.ndarray:
    """Places of the trials, the best first; of those that the model cannot tell from the best, by what was observed."""
    means = summary.posterior.mean(summary.seen.points)
    is_alike = means <= means.min() + _ALIKE
    return np.lexsort((means, np.where(is_alike, summary.seen.values, np.inf)))


def is_candidate(trial: FrozenTrial) -> bool:
    """Whether a trial may be recommended: complete, a number, and within its constraints."""
    if trial.state != TrialState.COMPLETE or any(math.isnan(value) for value in trial.values):
        return False
    return is_feasible(trial)
