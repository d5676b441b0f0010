"""Checks of the search: noise, a sampler that is stuck, improvement that has stalled or was cut short. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tunesvc.queries.health.evidence import BestSoFar, Evidence, SeenTrial
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.queries.rows import StudyStatus
from tunesvc.search.analysis.noise import noise_of
from tunesvc.search.registry.component_options import name_of
from tunesvc.search.samplers.gp.domain import Domain
from tunesvc.space.search_space import Space
from tunesvc.util.formatting import number as shown

NOISE_FROM = 40
"""Complete trials."""
NOISE_MAX = 0.5
"""Noise in units of what separates the best configuration from a middling one."""

STUCK_WINDOW = 30
"""The newest proposals."""
NEAR = 0.005
"""Mean distance over the parameters, of their ranges, below which two configurations are as good as equal."""
REPEATED_MIN = 0.5
"""Share of the window that repeats what was tried before."""

STALLED_FROM = 50
"""Trials that are over."""
STALLED_AT = 0.4
"""The best was found within this first part of the trials."""
CUT_AT = 0.75
"""The last quarter."""
GAIN_MIN = 0.05
"""Of all that was gained, the least in the last quarter that makes more budget worth while."""


def noise(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """The metric is noisy: results of equal configurations differ by half and more of what lies between a middling
    configuration and the best one.

    The deviation is pooled over configurations that were measured more than once, if there are eight such
    measurements; else a Gaussian process learns it, which cannot tell noise from a function that jumps. From 40
    complete trials on.
    """
    if not evidence.is_single:
        return InsufficientData("Not asked of a study with several objectives.")
    complete = evidence.study.counts.complete
    if complete < NOISE_FROM:
        return InsufficientData(f"Asked from {NOISE_FROM} complete trials on; there are {complete}.", True)
    told = list({one.number: one for one in (*evidence.complete(), *evidence.best)}.values())
    found = noise_of([_frozen(one) for one in told], evidence.study.objectives[0].goal, evidence.study.shared_seeds)
    if found is None:
        return InsufficientData("The trials differ in no parameter.")
    name = evidence.study.objectives[0].name
    by = f"over {found.repeats} repeats" if found.repeats else "as the model sees it"
    numbers = (
        f"equal configurations differ by ± {shown(float(f'{found.deviation:.2g}'))} in {name} ({by}), "
        f"and a middling one is {shown(float(f'{found.effect:.2g}'))} worse than the best"
    )
    if not found.ratio >= NOISE_MAX:
        return InsufficientData(f"Results tell configurations apart: {numbers}.")
    doubt = "" if found.repeats else " A function that jumps from one configuration to the next looks alike."
    more = (
        "A larger validation set makes every trial tell more"
        if evidence.study.shared_seeds
        else "`seeds: 5`, with an objective that splits its data and trains by `trial.seed`, makes every trial tell "
        "more: what a seed does to all trials alike is then no noise"
    )
    confirm = evidence.study.confirm_command
    sure = f"`{confirm}` runs the best ones again with other seeds, and says which is best and how sure that is"
    text = f"{numbers[0].upper()}{numbers[1:]}.{doubt}"
    return [HealthFinding("warn" if found.repeats else "note", text, f"{sure}. {more}.")]


def stuck(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """The sampler is stuck: half of the last 30 proposals and more repeat an earlier configuration, or come nearer
    than 0.5 % of the ranges to one, and none of the 30 was a new best.

    Not where every configuration has been tried already, and not of repeats by design (`tune confirm`).
    """
    spec, window = evidence.study.spec, evidence.recent[-STUCK_WINDOW:]
    if len(evidence.recent) < 2 * STUCK_WINDOW:
        there = len(evidence.recent)
        return InsufficientData(f"Asked from {2 * STUCK_WINDOW} proposals on; there are {there}.", True)
    if ":confirm" in evidence.study.name:
        return InsufficientData("The study repeats configurations by design.")
    size = None if spec is None or spec.define_by_run else Space(spec.parameters).size
    if size is not None and evidence.study.counts.total >= size:
        return InsufficientData(f"All {size:,} configurations have been tried.")
    repeated = _repeated(evidence.recent)
    over = evidence.study.counts.done
    gained = any(record.place > over - STUCK_WINDOW for record in evidence.records)
    if repeated < REPEATED_MIN * len(window) or gained:
        return InsufficientData(f"{repeated} of the last {len(window)} proposals repeat an earlier configuration.")
    sampler = "the sampler" if spec is None else f"sampler {name_of(spec.sampler)}"
    text = (
        f"{repeated} of the last {len(window)} proposals repeat an earlier configuration, or come within {NEAR:.1%} of "
        f"one, and none of them was a new best: {sampler} is stuck."
    )
    advice = (
        "If the result is good enough, stop the study. Else wider ranges, another `sampler` or another `seed` lead it "
        "elsewhere; a new study with this one in its `warm_start` begins with what is known."
    )
    return [HealthFinding("warn", text, advice, _stop(evidence))]


def stalled(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Improvement has stalled: the best was found within the first 40 % of the trials, of which there are 50 and more,
    and budget is left. Of a random search the first 40 % would hold the best with probability 0.4, so this is a note.

    Or it was cut short: the budget is spent, and the last quarter of the trials brought two new bests and more, and
    5 % and more of all that was gained since the first quarter.
    """
    if not evidence.is_single:
        return InsufficientData("Not asked of a study with several objectives.")
    over = evidence.study.counts.done
    if over < STALLED_FROM or not evidence.records:
        return InsufficientData(f"Asked from {STALLED_FROM} finished trials on; there are {over}.", True)
    last, name = evidence.records[-1], evidence.study.objectives[0].name
    since = over - last.place
    told = f"the best {name}, {shown(last.value)}, came {since:,} trials ago, after {last.place:,} of {over:,}"
    if not evidence.study.state.is_terminal:
        if last.place > STALLED_AT * over:
            return InsufficientData(f"Still improving: {told}.")
        return [_stalled(evidence, told)]
    is_cut = evidence.study.state is StudyStatus.FINISHED and not evidence.study.is_exhausted
    if is_cut and (gain := _late_gain(evidence.records, over)) is not None:
        return [_cut_short(evidence, *gain)]
    return InsufficientData(f"{told[0].upper()}{told[1:]}.")


def _stalled(evidence: Evidence, told: str) -> HealthFinding:
    left = f"{1 - evidence.study.fraction:.0%} of the budget is left" if evidence.study.budget else "it has no budget"
    return HealthFinding(
        "note",
        f"Improvement has stalled: {told}, and {left}.",
        "If that is good enough, stop it and spend the rest elsewhere; `budget.stop_when` ends a study by itself then. "
        "Wider ranges, other parameters or another sampler may find more.",
        _stop(evidence),
    )


def _stop(evidence: Evidence) -> Action | None:
    is_to_run = evidence.study.state in (StudyStatus.RUNNING, StudyStatus.INTERRUPTED)
    return Action("stop", {}, "Stop the study") if is_to_run else None


def _late_gain(records: Sequence[BestSoFar], over: int) -> tuple[int, float] | None:
    """New bests in the last quarter, and their share of the gain since the first quarter, if it is worth while."""
    late = [record for record in records if record.place > CUT_AT * over]
    before = [record.value for record in records if record.place <= CUT_AT * over]
    first = [record.value for record in records if record.place <= (1 - CUT_AT) * over]
    if len(late) < 2 or not first or not before or not math.isfinite(first[-1]):
        return None
    whole = abs(late[-1].value - first[-1])
    share = abs(late[-1].value - before[-1]) / whole if whole > 0 else 0.0
    return (len(late), share) if share >= GAIN_MIN else None


def _cut_short(evidence: Evidence, bests: int, share: float) -> HealthFinding:
    budget = evidence.study.budget
    limits: Mapping[str, float | None] = {} if budget is None else budget.limits
    more = {name: _half(name, limit) for name, limit in limits.items() if limit}
    return HealthFinding(
        "note",
        f"It was still improving when it ended: the last quarter of its trials brought {bests} new bests and "
        f"{share:.0%} of what was gained since the first quarter.",
        f"More budget is likely to pay; `{evidence.study.resume_command}` then continues it.",
        Action("extend", more, "Extend the budget by half") if more else None,
    )


def _half(name: str, limit: float) -> float:
    return max(1, math.ceil(limit / 2)) if name == "trials" else limit / 2


def _repeated(recent: Sequence[SeenTrial]) -> int:
    """How many of the newest proposals come near an earlier one among `recent`."""
    kinds = {name: kind for one in recent for name, kind in one.distributions.items() if not kind.single()}
    if not kinds:
        return 0
    domain = Domain(kinds)
    points = np.stack([domain.encode(one.params) for one in recent])
    is_choice = domain.choices > 0
    count = 0
    for row in range(len(points) - STUCK_WINDOW, len(points)):
        apart = np.abs(points[:row] - points[row])
        apart[:, is_choice] = apart[:, is_choice] > 0
        count += bool((apart.mean(axis=1) <= NEAR).any())
    return count


def _frozen(one: SeenTrial) -> FrozenTrial:
    trial = optuna.trial.create_trial(
        state=TrialState.COMPLETE, value=one.value, params=dict(one.params), distributions=dict(one.distributions)
    )
    trial.number = one.number
    return trial
