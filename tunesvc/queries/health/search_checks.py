"""Checks of the search: noise, a stuck sampler, stalled or cut short improvement. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tunesvc.queries.health.evidence import BestSoFar, Evidence, SeenTrial
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.queries.rows import StudyStatus
from tunesvc.search.analysis.noise import Noise, measure
from tunesvc.search.registry.component_options import name_of
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.fitted import fit_posterior
from tunesvc.space.search_space import Space
from tunesvc.util.formatting import number as shown

NOISE_FROM = 40
"""Fewest complete trials."""
NOISE_MAX = 0.5
"""Largest acceptable noise, in units of the difference of a median and the best configuration."""

STUCK_WINDOW = 30
"""Newest proposals that are compared with earlier ones."""
NEAR = 0.005
"""Mean distance in parts of the ranges below which two configurations count as equal."""
REPEATED_MIN = 0.5
"""Smallest share of repeated configurations for a finding."""

STALLED_FROM = 50
"""Fewest finished trials."""
STALLED_AT = 0.4
"""Improvement has stalled if the best was found within this first share of the trials."""
CUT_AT = 0.75
"""Start of the last quarter."""
GAIN_MIN = 0.05
"""Smallest share of all improvement in the last quarter that makes more budget worthwhile."""


def noise(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find a noisy metric.

    Criterion: results of equal configurations deviate by half or more of the difference between a
    median configuration and the best one.

    The deviation is pooled over configurations that were measured more than once, if there are
    eight such measurements; else a Gaussian process estimates it, which cannot distinguish noise
    from a discontinuous function. Needs 40 complete trials.
    """
    if not evidence.is_single:
        return InsufficientData("Not asked of a study with several objectives.")
    complete = evidence.study.counts.complete
    if complete < NOISE_FROM:
        text = f"Asked from {NOISE_FROM} complete trials on; there are {complete}."
        return InsufficientData(text, True)
    found = noise_in(evidence)
    if found is None:
        return InsufficientData("The trials differ in no parameter.")
    numbers = _describe_noise(found, evidence.study.objectives[0].name)
    if not found.ratio >= NOISE_MAX:
        return InsufficientData(f"Results tell configurations apart: {numbers}.")
    text = f"{numbers[0].upper()}{numbers[1:]}."
    if not found.repeats:
        text += " A function that jumps from one configuration to the next looks alike."
    advice = f"{_advise_confirm(evidence)}. {_advise_less_noise(evidence)}."
    return [HealthFinding("warn" if found.repeats else "note", text, advice)]


@lru_cache(maxsize=1)  # two checks ask, and fitting the model takes longer than all else
def noise_in(evidence: Evidence) -> Noise | None:
    """Estimate the noise of a study of one objective; None if no parameter varies."""
    trials = {one.number: one for one in (*evidence.complete(), *evidence.best)}
    finite = [one for one in trials.values() if one.value is not None and math.isfinite(one.value)]
    summary = fit_posterior(
        [_frozen(one) for one in finite],
        evidence.study.objectives[0].goal,
        evidence.study.shared_blocks,
    )
    return None if summary is None else measure(summary)


def _describe_noise(found: Noise, name: str) -> str:
    source = f"over {found.repeats} repeats" if found.repeats else "as the model sees it"
    deviation = shown(float(f"{found.deviation:.2g}"))
    effect = shown(float(f"{found.effect:.2g}"))
    return (
        f"equal configurations differ by ± {deviation} in {name} ({source}), and a middling one "
        f"is {effect} worse than the best"
    )


def _advise_confirm(evidence: Evidence) -> str:
    repeats = f"`{evidence.study.confirm_command}` runs the best ones again with other seeds"
    return f"{repeats}, and says which is best and how sure that is"


def _advise_less_noise(evidence: Evidence) -> str:
    if evidence.study.shared_blocks:
        return "A larger validation set makes every trial tell more"
    return (
        "`evaluation: {repeats: 5, per_trial: 1}`, with an objective that splits its data and "
        "trains by `trial.seed`, makes every trial tell more: the effect of a seed on all trials "
        "alike is then no noise"
    )


def stuck(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find a sampler that is stuck.

    Criterion: half or more of the last 30 proposals repeat an earlier configuration, or come nearer
    than 0.5 % of the ranges to one, and none of the 30 was a new best.

    Does not apply if every configuration has been tried, nor to repeats by design (`tune confirm`).
    """
    spec = evidence.study.spec
    window = evidence.recent[-STUCK_WINDOW:]
    proposals = len(evidence.recent)
    if proposals < 2 * STUCK_WINDOW:
        text = f"Asked from {2 * STUCK_WINDOW} proposals on; there are {proposals}."
        return InsufficientData(text, True)
    if ":confirm" in evidence.study.name:
        return InsufficientData("The study repeats configurations by design.")
    if spec is not None and not spec.define_by_run:
        size = Space(spec.parameters).size
        if size is not None and evidence.study.counts.total >= size:
            return InsufficientData(f"All {size:,} configurations have been tried.")
    repeated = _count_repeated(evidence.recent)
    finished = evidence.study.counts.done
    has_improved = any(record.place > finished - STUCK_WINDOW for record in evidence.records)
    repeats = f"{repeated} of the last {len(window)} proposals repeat an earlier configuration"
    if repeated < REPEATED_MIN * len(window) or has_improved:
        return InsufficientData(f"{repeats}.")
    sampler = "the sampler" if spec is None else f"sampler {name_of(spec.sampler)}"
    near = f"or come within {NEAR:.1%} of one, and none of them was a new best"
    text = f"{repeats}, {near}: {sampler} is stuck."
    advice = (
        "If the result is good enough, stop the study. Otherwise wider ranges, another `sampler` "
        "or another `seed` lead it elsewhere; a new study with this one in its `warm_start` "
        "starts with the known results."
    )
    return [HealthFinding("warn", text, advice, stop_action(evidence))]


def stalled(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find improvement that has stalled, or that the budget cut short.

    Stalled: of 50 trials or more, the best was found within the first 40 %, and budget is left. In
    a random search the first 40 % would contain the best with probability 0.4, so this is a note.

    Cut short: the budget is spent, and the last quarter of the trials brought two or more new
    bests, and 5 % or more of the improvement since the first quarter.
    """
    if not evidence.is_single:
        return InsufficientData("Not asked of a study with several objectives.")
    finished = evidence.study.counts.done
    if finished < STALLED_FROM or not evidence.records:
        text = f"Asked from {STALLED_FROM} finished trials on; there are {finished}."
        return InsufficientData(text, True)
    last = evidence.records[-1]
    name = evidence.study.objectives[0].name
    best = (
        f"the best {name}, {shown(last.value)}, came {finished - last.place:,} trials ago, after "
        f"{last.place:,} of {finished:,}"
    )
    if not evidence.study.state.is_terminal:
        if last.place > STALLED_AT * finished:
            return InsufficientData(f"Still improving: {best}.")
        return [_stalled(evidence, best)]
    is_cut = evidence.study.state is StudyStatus.FINISHED and not evidence.study.is_exhausted
    if is_cut and (gain := _late_improvement(evidence.records, finished)) is not None:
        return [_cut_short(evidence, *gain)]
    return InsufficientData(f"{best[0].upper()}{best[1:]}.")


def _stalled(evidence: Evidence, best: str) -> HealthFinding:
    left = "it has no budget"
    if evidence.study.budget:
        left = f"{1 - evidence.study.fraction:.0%} of the budget is left"
    advice = (
        "If that is good enough, stop it and spend the rest elsewhere; `budget.stop_when` then "
        "ends a study by itself. Wider ranges, other parameters or another sampler may find more."
    )
    text = f"Improvement has stalled: {best}, and {left}."
    return HealthFinding("note", text, advice, stop_action(evidence))


def stop_action(evidence: Evidence) -> Action | None:
    """Return the request to stop a study that should run; None for any other."""
    should_run = evidence.study.state in (StudyStatus.RUNNING, StudyStatus.INTERRUPTED)
    return Action("stop", {}, "Stop the study") if should_run else None


def _late_improvement(
    records: Sequence[BestSoFar],
    finished: int,
) -> tuple[int, float] | None:
    """Return the new bests in the last quarter and their share of the improvement.

    The share is of the improvement since the first quarter; None if it is too small.
    """
    late = [record for record in records if record.place > CUT_AT * finished]
    before = [record.value for record in records if record.place <= CUT_AT * finished]
    first = [record.value for record in records if record.place <= (1 - CUT_AT) * finished]
    if len(late) < 2 or not first or not before or not math.isfinite(first[-1]):
        return None
    total = abs(late[-1].value - first[-1])
    share = abs(late[-1].value - before[-1]) / total if total > 0 else 0.0
    return (len(late), share) if share >= GAIN_MIN else None


def _cut_short(evidence: Evidence, bests: int, share: float) -> HealthFinding:
    budget = evidence.study.budget
    limits: Mapping[str, float | None] = {} if budget is None else budget.limits
    more = {name: _half(name, limit) for name, limit in limits.items() if limit}
    text = (
        "It was still improving when it ended: the last quarter of its trials brought "
        f"{bests} new bests and {share:.0%} of the improvement since the first quarter."
    )
    advice = f"More budget is likely to pay; `{evidence.study.resume_command}` then continues it."
    action = Action("extend", more, "Extend the budget by half") if more else None
    return HealthFinding("note", text, advice, action)


def _half(name: str, limit: float) -> float:
    return max(1, math.ceil(limit / 2)) if name == "trials" else limit / 2


def _count_repeated(recent: Sequence[SeenTrial]) -> int:
    """Count the newest proposals that are near an earlier one among `recent`."""
    varied: dict[str, BaseDistribution] = {}
    for trial in recent:
        own = trial.distributions.items()
        varied |= {name: distribution for name, distribution in own if not distribution.single()}
    if not varied:
        return 0
    domain = Domain(varied)
    points = np.stack([domain.encode(trial.params) for trial in recent])
    is_choice = domain.choices > 0
    count = 0
    for row in range(len(points) - STUCK_WINDOW, len(points)):
        distances = np.abs(points[:row] - points[row])
        distances[:, is_choice] = distances[:, is_choice] > 0
        count += bool((distances.mean(axis=1) <= NEAR).any())
    return count


def _frozen(one: SeenTrial) -> FrozenTrial:
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=one.value,
        params=dict(one.params),
        distributions=dict(one.distributions),
    )
    trial.number = one.number
    return trial
