"""Checks of cost: the gain of more trials, failures that were paid for, parallelism. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesvc.policy import Failure
from tunesvc.queries.cost.outlook import Outlook, describe_outlook
from tunesvc.queries.cost.spending import EffortUnit, FailureSpending
from tunesvc.queries.health.evidence import Evidence
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.queries.health.run_checks import slots_of
from tunesvc.queries.health.search_checks import NOISE_FROM, NOISE_MAX, noise_in, stop_action
from tunesvc.search.analysis.noise import Noise

CONVERGED_AT = 0.01
"""Largest gain to expect of a study that has converged, as a share of its improvement so far."""
ALIKE_MIN = 5
"""Fewest of the best trials that lie within the noise, to be named."""

WASTED_MIN = 1 / 3
"""Smallest share of failed attempts in what a study took."""
WASTED_FROM = 10
"""Fewest attempts."""
FAILED_FROM = 3
"""Fewest failed attempts."""

SLOTS_FROM = 4
ROUNDS_MIN = 5
"""Fewest rounds of trials, one for each slot, with which a sampler learns from most of its
trials."""
_UNAIMED = ("random", "qmc", "grid", "brute")
"""Samplers that learn nothing from results."""


def worth(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find a study in which further trials are not worth their cost.

    Criterion: the forecast gain of a quarter more trials is below the deviation between results
    of equal configurations, if the metric is noisy (see `noise`); or its upper bound (90 %
    interval) is below 1 % of the difference between the median result and the best one. Needs 40
    complete trials.
    """
    if not evidence.is_single:
        return InsufficientData("Not asked of a study with several objectives.")
    complete = evidence.study.counts.complete
    if complete < NOISE_FROM:
        text = f"Asked from {NOISE_FROM} complete trials on; there are {complete}."
        return InsufficientData(text, True)
    losses = np.array([evidence.loss(one.value) for one in evidence.best if one.value is not None])
    outlook = describe_outlook(evidence.study, losses)
    if outlook is None or outlook.gain is None:
        reason = "no trial has finished" if outlook is None else outlook.reason
        return InsufficientData(f"The gain of more trials cannot be forecast: {reason}.")
    results = [evidence.loss(one.value) for one in evidence.complete() if one.value is not None]
    improved = float(np.median(results) - losses.min())
    if outlook.gain.high < CONVERGED_AT * improved:
        return [_converged(evidence, outlook, improved)]
    found = noise_in(evidence)
    is_noisy = found is not None and found.ratio >= NOISE_MAX
    if found is not None and is_noisy and outlook.gain.mean < found.deviation:
        return [_drowned(evidence, outlook, found, losses)]
    return InsufficientData(outlook.text)


def _drowned(
    evidence: Evidence,
    outlook: Outlook,
    found: Noise,
    losses: np.ndarray,
) -> HealthFinding:
    alike = int((losses <= losses.min() + found.deviation).sum())
    among = f"; {alike} of the best trials lie within that" if alike >= ALIKE_MIN else ""
    text = (
        f"More trials are not worth their cost: {_lower_first(outlook.text)} Results of equal "
        f"configurations differ by ± {found.deviation:.2g}, more than that gain{among}."
    )
    advice = (
        f"Spend it on certainty: `{evidence.study.confirm_command}` repeats the best ones. A "
        "larger validation set, or `evaluation: {repeats: 3}`, makes smaller differences visible."
    )
    return HealthFinding("note", text, advice, stop_action(evidence))


def _converged(evidence: Evidence, outlook: Outlook, improved: float) -> HealthFinding:
    share = 0.0 if outlook.gain is None else outlook.gain.high / improved
    at_most = f"at most {share:.1%}" if share >= 0.001 else "less than 0.1%"
    text = (
        f"More trials are not worth their cost: {_lower_first(outlook.text)} That is {at_most} "
        "of the difference between a middling trial and the best one."
    )
    advice = "Take the best trial. Only other parameters or wider ranges may find much more."
    return HealthFinding("note", text, advice, stop_action(evidence))


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def wasted(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find a study that mostly paid for failures.

    Criterion: failed attempts took a third or more of what all attempts took. Needs 10 attempts,
    and 3 failed ones.
    """
    spent = evidence.spent
    attempts = sum(one.attempts for one in spent)
    failed = [one for one in spent if one.failure is not None]
    count = sum(one.attempts for one in failed)
    total = sum(one.amount for one in spent)
    if attempts < WASTED_FROM or total <= 0:
        return InsufficientData(f"Asked from {WASTED_FROM} attempts on.", True)
    lost = sum(one.amount for one in failed)
    unit = EffortUnit.of(evidence.study)
    numbers = f"{count:,} failed attempts took {unit.format(lost)} of {unit.format(total)}"
    if count < FAILED_FROM or lost < WASTED_MIN * total:
        return InsufficientData(f"{numbers} ({lost / total:.0%}).")
    dearest = max(failed, key=lambda one: one.amount)
    text = f"{lost / total:.0%} was paid for failures: {numbers}, most of it for {_name(dearest)}."
    return [HealthFinding("warn", text, _advise_against(dearest.failure))]


def _name(spent: FailureSpending) -> str:
    return f"`{spent.failure}` ({spent.attempts:,} attempts)"


def _advise_against(failure: str | None) -> str:
    """Return advice against the class of failure that took most."""
    match failure:
        case Failure.GPU_OOM | Failure.HOST_OOM:
            return (
                "Request more memory in `resources`, or exclude what does not fit by a narrower "
                "range or `when`; the sampler learns where memory ends, but pays for each try."
            )
        case Failure.LOST | Failure.STALLED | Failure.NODE | Failure.PREEMPTED:
            return (
                "Save checkpoints (`trial.checkpoint`), so that a retry continues and does not "
                "start again; or use machines that are not taken away."
            )
        case Failure.TIMEOUT | Failure.SILENCE:
            return (
                "Raise the limit if such trials are worth it, otherwise let the pruner stop them "
                "earlier: report more often, with `pruner: auto`."
            )
    return (
        "See what fails with `tune show STUDY TRIAL`, and stop the study until it is mended; "
        "`limits.failures` ends one early in which every trial fails."
    )


def parallel(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find parallelism that the budget cannot use well.

    Criterion: the most trials that ran at a time, four or more, leave fewer than five rounds of a
    budget of trials to a sampler that learns from results.
    """
    study, spec = evidence.study, evidence.study.spec
    if spec is None or spec.budget.trials is None:
        return InsufficientData("The study has no budget of trials.")
    if spec.sampler.name in _UNAIMED or spec.search is not None:
        return InsufficientData("The sampler learns nothing from results.")
    slots = slots_of(evidence)
    if slots < SLOTS_FROM:
        return InsufficientData(f"Asked from {SLOTS_FROM} trials at a time on.", slots == 0)
    rounds = spec.budget.trials / slots
    at_a_time = f"{slots} trials at a time make {rounds:.1f} rounds of {spec.budget.trials}"
    if rounds >= ROUNDS_MIN:
        return InsufficientData(f"{at_a_time[0].upper()}{at_a_time[1:]}.")
    fewer = max(1, spec.budget.trials // (2 * ROUNDS_MIN))
    text = (
        f"More workers would not help: {at_a_time}, so most trials are proposed before the results "
        "of others are known."
    )
    advice = (
        f"A `parallelism` of {fewer} costs the same and finds more, later. If time matters "
        "most, a larger budget makes use of the workers."
    )
    action = Action("parallelism", {"trials": fewer}, f"Run {fewer} at a time")
    return [HealthFinding("note", text, advice, action if study.coordinator is not None else None)]
