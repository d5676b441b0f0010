"""Checks of trials' execution: pruning, failures, idle workers. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tunesvc.policy import Failure
from tunesvc.queries.health.evidence import Evidence, OccupiedTime, SeenTrial, directions_of
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.search.pruners.audit import measured
from tunesvc.space.search_space import place
from tunesvc.spec import ParamValue
from tunesvc.util.formatting import duration, names_in
from tunesvc.util.formatting import number as shown

WRONG_MAX = 0.05
"""Largest acceptable rate of false prunes."""

FAILED_FROM = 5
OTHERS_FROM = 5
ALPHA = 0.01
"""Probability of a false alarm, over all rules that are tested."""
CUTS = 12
"""Thresholds that are tested per parameter, each in both directions."""
LIFT = 2.0
"""Smallest ratio of failure rates inside and outside of a region."""

IDLE_MAX = 0.25
IDLE_FROM = 20
"""Fewest attempts per slot."""
WINDOW_MIN_S = 60.0
PAUSE_S = 60.0
"""A longer time without any attempt counts as a pause of the study, not as idle time."""


def pruning(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find a pruner that is too eager.

    Criterion: more than 1 in 20 audited trials, which finished although the pruner would have
    stopped them, were better than the best at that time (with several objectives: extended the
    front), with 97.5 % certainty (lower end of the interval of Clopper and Pearson).
    """
    spec = evidence.study.spec
    if spec is None or spec.pruner.name == "none":
        return InsufficientData("The study has no pruner.")
    audit = measured(evidence.audited, *directions_of(evidence.study))
    if not audit.audited:
        text = (
            "None of the trials that it would have stopped has been run to the end so far, so its "
            "error rate is not known."
        )
        return InsufficientData(text, evidence.study.counts.pruned < 1)
    if evidence.is_single:
        better = "ended better than the best at that time"
    else:
        better = "would have extended the front at that time"
    numbers = (
        f"{audit.wrong} of {audit.audited} trials that were run to the end to check the pruner "
        f"{better}, so it errs in {audit.low:.1%} to {audit.high:.0%} of its stops"
    )
    if audit.low <= WRONG_MAX:
        return InsufficientData(f"{numbers[0].upper()}{numbers[1:]}.")
    advice = (
        "Make the pruner more patient: a lower `chance` for pruner auto, a larger `min` or a "
        "smaller `eta` for asha; or turn it off with `pruner: none`. Trials that were stopped can "
        "be run again with `tune enqueue`."
    )
    return [HealthFinding("warn", f"Pruning is too eager: {numbers}.", advice)]


def failures(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find failures that are clustered in a part of the space.

    Criterion: beyond a threshold or within a choice of one parameter, trials fail at least twice as
    often as elsewhere (Fisher's exact test, one-sided, below 0.01 after Bonferroni's correction for
    all rules tested).

    Of the machine's failures, only those by lack of memory count. Needs 5 failed and 5 other
    trials.
    """
    failed = [one for one in evidence.failed if _is_own(one.failure)]
    others = [one for one in evidence.sampled if one.state in ("complete", "pruned")]
    if len(failed) < FAILED_FROM or len(others) < OTHERS_FROM:
        if not failed:
            return InsufficientData("No trial failed by itself.")
        text = f"{len(failed)} trials failed for reasons of their own."
        return InsufficientData(text, len(others) < OTHERS_FROM)
    rules: list[_ParameterRule] = []
    for name in names_in(trial.params for trial in (*failed, *others)):
        rules += _rules(name, failed, others)
    best = min(rules, key=lambda rule: rule.chance, default=None)
    if best is None or best.chance * len(rules) >= ALPHA:
        return InsufficientData(
            f"{evidence.study.counts.failed} trials failed, in no particular part of the space.",
        )
    return [_clustered(best, len(rules))]


@dataclass(frozen=True, slots=True)
class _ParameterRule:
    """A part of one parameter's values, with the counts of trials in it."""

    text: str
    failed: int
    of_failed: int
    others: int
    of_others: int

    @property
    def chance(self) -> float:
        """Probability of so many failures in it by chance; 1 if it has too few to matter."""
        inside = self.failed / max(self.failed + self.others, 1)
        out_failed = self.of_failed - self.failed
        out_others = self.of_others - self.others
        outside = out_failed / max(out_failed + out_others, 1)
        if self.failed < FAILED_FROM or inside < LIFT * outside:
            return 1.0
        from scipy.stats import fisher_exact  # slow to import, and rarely needed

        table = [[self.failed, self.others], [out_failed, out_others]]
        return float(fisher_exact(table, alternative="greater").pvalue)


def _clustered(rule: _ParameterRule, tried: int) -> HealthFinding:
    p = min(1.0, rule.chance * tried)
    text = (
        f"Failures are clustered at {rule.text}: {rule.failed} of {rule.of_failed} failed trials "
        f"lie there, but only {rule.others} of {rule.of_others} others (p = {p:.1g} after "
        f"correction for {tried} rules)."
    )
    advice = (
        "See what fails there with `tune show STUDY TRIAL`. Fix it, or exclude that part in a new "
        "study, with this one in its `warm_start`."
    )
    return HealthFinding("warn", text, advice)


def _is_own(failure: str | None) -> bool:
    if failure is None or failure not in set(Failure):
        return True
    return not Failure(failure).is_infrastructure or failure == Failure.HOST_OOM


def _rules(
    name: str,
    failed: Sequence[SeenTrial],
    others: Sequence[SeenTrial],
) -> Iterator[_ParameterRule]:
    """Yield a rule for each choice of a parameter, or for each side of each threshold."""
    bad = [one.params[name] for one in failed if name in one.params]
    good = [one.params[name] for one in others if name in one.params]
    kinds = set()
    for one in (*failed, *others):
        if name in one.distributions:
            kinds.add(one.distributions[name])

    def rule(condition: str, bad_inside: int, good_inside: int) -> _ParameterRule:
        text = f"{name} {condition}"
        return _ParameterRule(text, bad_inside, len(failed), good_inside, len(others))

    if any(isinstance(kind, CategoricalDistribution) for kind in kinds):
        bad_keys = [_key(value) for value in bad]
        good_keys = [_key(value) for value in good]
        for key in dict.fromkeys(bad_keys):
            yield rule(f"= {key[1]}", bad_keys.count(key), good_keys.count(key))
        return
    bad_values = _as_floats(bad)
    good_values = _as_floats(good)
    every = np.concatenate([bad_values, good_values])
    for cut in _cuts(every, next(iter(kinds), None)):
        for sign, is_inside in (("≤", operator.le), ("≥", operator.ge)):
            bad_inside = int(is_inside(bad_values, cut).sum())
            good_inside = int(is_inside(good_values, cut).sum())
            yield rule(f"{sign} {shown(cut)}", bad_inside, good_inside)


def _as_floats(values: Sequence[ParamValue]) -> np.ndarray:
    return np.array([float(value) for value in values if value is not None])


def _key(value: ParamValue) -> tuple[str, str]:
    return type(value).__name__, str(value)


def _cuts(values: np.ndarray, kind: BaseDistribution | None) -> list[float]:
    """Return thresholds with about equally many values between them."""
    if not len(values) or kind is None or place(kind, float(values[0])) is None:
        return []
    shares = np.arange(1, CUTS + 1) / (CUTS + 1)
    quantiles = np.quantile(values, shares, method="nearest")
    return sorted({float(cut) for cut in quantiles})


def idle(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find workers that are idle for a quarter of their time or more.

    The slots are the most trials that ran at a time. Examines the newest 2,000 attempts, from the
    first start to the last opening, without gaps of a minute and more, so that neither pauses nor
    the end of a study count. Needs 20 attempts per slot and a minute.
    """
    use = None if evidence.now is None else _utilisation(evidence.attempts, evidence.now)
    if use is None or not _is_long_enough(use, len(evidence.attempts)):
        text = "Asked from 20 attempts per slot, two slots and a minute on."
        return InsufficientData(text, True)
    idle_share = 1 - use.busy_s / (use.slots * use.window_s)
    window = duration(use.window_s)
    if idle_share < IDLE_MAX:
        return InsufficientData(f"{use.slots} slots were in use {1 - idle_share:.0%} of {window}.")
    text = f"{idle_share:.0%} of the time of {use.slots} slots over {window} passed without a trial"
    wait_share = use.waited_s / (use.slots * use.window_s)
    if wait_share > idle_share / 2:
        each = duration(use.waited_s / max(1, len(evidence.attempts)))
        cause = f"; for most of it trials waited for a worker to start, {each} each"
        advice = (
            "Workers are warm from the second trial on, unless `environment.isolation` is "
            "`process` or they keep dying; check if other studies use the cluster."
        )
    else:
        cause = "; trials end faster than new ones are proposed and started"
        fastest = "`sampler: random` and `tpe` propose the fastest"
        advice = f"Let each trial do more, or lower `parallelism`; {fastest}."
    action = _lower_parallelism(evidence, use, idle_share)
    return [HealthFinding("warn", f"{text}{cause}.", advice, action)]


def slots_of(evidence: Evidence) -> int:
    """Return the most trials that ran at a time among the newest attempts; 0 if unknown."""
    use = None if evidence.now is None else _utilisation(evidence.attempts, evidence.now)
    return 0 if use is None else use.slots


def _lower_parallelism(
    evidence: Evidence,
    use: _Utilisation,
    share: float,
) -> Action | None:
    fewer = max(1, math.ceil(use.slots * (1 - share) * 1.25))
    if evidence.study.coordinator is None or fewer >= use.slots:
        return None
    return Action("parallelism", {"trials": fewer}, f"Run {fewer} at a time")


@dataclass(frozen=True, slots=True)
class _Utilisation:
    slots: int
    busy_s: float
    waited_s: float
    window_s: float


def _is_long_enough(use: _Utilisation, attempts: int) -> bool:
    return use.slots >= 2 and attempts >= IDLE_FROM * use.slots and use.window_s >= WINDOW_MIN_S


def _utilisation(attempts: Sequence[OccupiedTime], now: datetime) -> _Utilisation | None:
    has_started = np.array([one.started_at is not None for one in attempts], dtype=bool)
    if has_started.sum() < 2:
        return None
    times = []
    for one in attempts:
        ended_at = one.ended_at or now
        moments = (one.opened_at, one.started_at or ended_at, ended_at)
        times.append([moment.timestamp() for moment in moments])
    opened, started, ended = np.array(times).T
    window = (started[has_started].min(), opened.max())
    opened, started, ended = np.clip([opened, started, ended], *window)
    window_s, _ = _sweep(opened, ended)
    _, slots = _sweep(started[has_started], ended[has_started])
    busy_s = float((ended - started).sum())
    waited_s = float((started - opened).sum())
    return _Utilisation(slots, busy_s, waited_s, window_s)


def _sweep(starts: np.ndarray, ends: np.ndarray) -> tuple[float, int]:
    """Return the seconds that spans cover, without pauses, and the most spans at a time."""
    times = np.concatenate([starts, ends])
    steps = np.repeat([1.0, -1.0], len(starts))
    order = np.lexsort((steps, times))  # at equal times, ends before starts
    lengths = np.diff(times[order])
    open_then = np.cumsum(steps[order])
    counted = (open_then[:-1] > 0) | (lengths < PAUSE_S)
    return float(lengths[counted].sum()), int(open_then.max(initial=0))
