"""Recommendation of a trial.

Without noise it is the best observed one. The best of several hundred noisy results is mostly
lucky: its true value is worse than it looks. Where the data show noise, the recommended trial is
the one with the best posterior mean over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial

from tunesvc.search.analysis.finalists import Finalist
from tunesvc.search.tracking.objectives import is_candidate
from tunesvc.spec.goals import Goal, orient
from tunesvc.util.formatting import number

if TYPE_CHECKING:
    from tunesvc.search.samplers.gp.model.fitted import PosteriorSummary

VERSION = 4
"""Raise it when the same trials get another recommendation: stored ones are then computed again."""
TRIALS_MIN = 10
"""Fewest complete trials for a model; with fewer, the best observed value decides."""
SEEDS_FROM = 40
"""Fewest complete trials for advice on seeds."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The recommended trial."""

    number: int
    mean: float
    """Expected value: the model's posterior mean, or the mean of its repeats."""
    deviation: float | None
    """Posterior standard deviation; None without a model, or if the data show no noise."""
    luckiest: int
    """Trial with the best observed value; the recommended one if it has that value too."""
    confirmed: Finalist | None = None
    """Repeats with other seeds, with the mean `mean`; None before a confirmation."""
    is_apart: bool = True
    """True if it differs from the luckiest by more than their deviations, or by repeats."""
    noise: float | None = None
    """Deviation between results of one configuration; None without noise, with few trials, or if
    the trials share seeds."""
    effect: float | None = None
    """Difference between a median configuration and the best one, by the model."""

    def __str__(self) -> str:
        return f"trial {self.number}: {self.describe() or f'observed {number(self.mean)}'}"

    @property
    def luck(self) -> str:
        """Judgement on the best observed value of another trial."""
        if self.is_apart:
            return "which is probably a lucky draw"
        return "but the two cannot be told apart"

    def advise_seeds(self, study: str) -> str:
        """Return advice to share seeds; empty unless a seed changes results more than parameters.

        That is so if results of one configuration deviate by more than the difference between a
        median configuration and the best one, with `SEEDS_FROM` complete trials or more.
        """
        if self.noise is None or self.effect is None or self.noise < self.effect:
            return ""
        return (
            "The seed decides more than the parameters: results of one configuration differ by "
            f"± {self.noise:.2g}, and a middling one is {self.effect:.2g} worse than the best. A "
            "new study with the lines `evaluation: {repeats: 5, per_trial: 1}` and "
            f"`warm_start: [{study}]`, whose objective splits its data and trains by `trial.seed`, "
            "tells them apart with fewer trials"
        )

    def describe(self, shared_blocks: str = "") -> str:
        """Return the evidence for its value as text; empty if there is only the observed value.

        Args:
            shared_blocks: the folds or seeds that trials have in turns, such as `5 folds`.
        """
        if (found := self.confirmed) is not None:
            low, high = number(found.low), number(found.high)
            chance = "" if found.chance is None else f", {found.chance:.0%} to be the best finalist"
            interval = f"95 %: {low} … {high}{chance}"
            return f"confirmed by {len(found.values)} repeats: {number(self.mean)} ({interval})"
        if self.deviation is None:
            return ""
        over = f" over {shared_blocks}" if shared_blocks else ""
        return f"expected {number(self.mean)} ± {self.deviation:.2g}{over}"


def recommend(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_blocks: int | None = None,
) -> Recommendation | None:
    """Recommend a trial of a study of one objective; None if none is complete and feasible.

    It is the best observed one while there are fewer than ten trials, or if they show no noise
    (`noise_evidence.is_noisy`). Otherwise it has the best posterior mean of a Gaussian process over
    all complete trials. Effects of `shared_blocks` folds or seeds on all trials alike are removed.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    if not candidates:
        return None
    summary = _noisy_summary(candidates, goal, shared_blocks)
    if summary is None:
        first = _by_observed(candidates, goal)[0]
        return Recommendation(first.number, first.values[0], None, first.number)
    best, mean, deviation = _best_by_posterior(summary)
    luckiest = luckiest_beside(best, candidates, goal)
    params = next(one.params for one in candidates if one.number == luckiest)
    (other,), (its_deviation,) = summary.predict(summary.domain.encode(params)[None])
    is_apart = bool(abs(other - mean) >= math.hypot(deviation, its_deviation))
    answer = Recommendation(best, mean, deviation, luckiest, is_apart=is_apart)
    if shared_blocks is not None or len(candidates) < SEEDS_FROM:
        return answer
    from tunesvc.search.analysis.noise import measure

    found = measure(summary)
    return replace(answer, noise=found.deviation, effect=found.effect)


def luckiest_beside(
    number: int,
    trials: Sequence[FrozenTrial],
    goal: Goal,
) -> int:
    """Return the trial with the best observed value; `number` if it has that value too."""
    candidates = [trial for trial in trials if is_candidate(trial)]
    luckiest = _by_observed(candidates, goal)[0]
    as_good = [trial.number for trial in candidates if trial.values == luckiest.values]
    is_as_good = number in as_good
    return number if is_as_good else luckiest.number


def _by_observed(
    candidates: Sequence[FrozenTrial],
    goal: Goal,
) -> list[FrozenTrial]:
    orientation = orient(goal)
    return sorted(
        candidates,
        key=lambda trial: (orientation * trial.values[0], trial.number),
    )


def ranked(
    trials: Sequence[FrozenTrial],
    goal: Goal,
    shared_blocks: int | None = None,
) -> list[int]:
    """Rank trials, the best first, one per configuration: by posterior mean if they show noise.

    The first is the one that `recommend` returns. Of many trials the model holds a sample.
    """
    candidates = [trial for trial in trials if is_candidate(trial)]
    summary = _noisy_summary(candidates, goal, shared_blocks)
    if summary is None:
        return [trial.number for trial in _by_observed(candidates, goal)]
    numbers = summary.seen.numbers
    configurations = [point.tobytes() for point in summary.seen.points]
    first = {configurations[place]: int(numbers[place]) for place in np.argsort(-numbers)}
    return list(dict.fromkeys(first[configurations[place]] for place in _in_order(summary)))


def _noisy_summary(
    candidates: Sequence[FrozenTrial],
    goal: Goal,
    shared_blocks: int | None,
) -> PosteriorSummary | None:
    """Return the fitted model of noisy results; None if the best observed value decides."""
    if len(candidates) < TRIALS_MIN:
        return None
    # They import SciPy, which takes half a second: `tune best` often needs no model.
    from tunesvc.search.analysis.noise_evidence import is_noisy
    from tunesvc.search.samplers.gp.model.fitted import fit_posterior

    summary = fit_posterior(candidates, goal, shared_blocks)
    return summary if summary is not None and is_noisy(summary, shared_blocks) else None


def _best_by_posterior(summary: PosteriorSummary) -> tuple[int, float, float]:
    """Return number, posterior mean and deviation of the best configuration's first trial."""
    points = summary.seen.points
    best = points[_in_order(summary)[0]]
    # The first measurement of a configuration stands for it.
    same = (points == best).all(
        axis=1,
    )
    (mean,), (deviation,) = summary.predict(best[None])
    return int(summary.seen.numbers[same].min()), float(mean), float(deviation)


def _in_order(summary: PosteriorSummary) -> np.ndarray:
    """Return indices of the trials, the best first; ties within rounding by observed value."""
    from tunesvc.search.samplers.gp.model.repeats import ALIKE

    means = summary.posterior.mean(summary.seen.points)
    is_alike = means <= means.min() + ALIKE
    return np.lexsort((means, np.where(is_alike, summary.seen.values, np.inf)))
