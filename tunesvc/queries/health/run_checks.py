"""Checks of how trials are run: pruning, failures, idle workers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection

from tunesvc.policy import Failure
from tunesvc.queries.health.evidence import Evidence, OccupiedTime, SeenTrial
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.search.pruners.audit import false_prunes
from tunesvc.space.search_space import place
from tunesvc.spec import ParamValue
from tunesvc.util.formatting import duration
from tunesvc.util.formatting import number as shown

WRONG_MAX = 0.05
"""The audited rate of false prunes may be so high."""

FAILED_FROM = 5
OTHERS_FROM = 5
ALPHA = 0.01
"""Chance of a false alarm, over all rules that are tried."""
CUTS = 12
"""Thresholds that are tried per parameter, each in both directions."""
LIFT = 2.0
"""Within the region, trials fail at least so many times as often as outside."""

IDLE_MAX = 0.25
IDLE_FROM = 20
"""Attempts per slot."""
WINDOW_MIN_S = 60.0
PAUSE_S = 60.0
"""So long without any attempt is a pause of the study, not idleness."""


def pruning(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Pruning is too eager: of the trials that were let finish to audit the pruner, more than 1 in 20 ended better
    than the best of then (with several objectives: extended its front), with 97.5 % certainty (lower end of the
    interval of Clopper and Pearson)."""
    spec = evidence.study.spec
    if spec is None or spec.pruner.name == "none":
        return InsufficientData("The study has no pruner.")
    directions = [
        StudyDirection.MAXIMIZE if one.maximize else StudyDirection.MINIMIZE for one in evidence.study.objectives
    ]
    told = false_prunes(evidence.audited, *directions)
    if not told.audited:
        text = "None of the trials that it would have stopped was let finish so far, so its rate of error is not known."
        return InsufficientData(text, evidence.study.counts.pruned < 1)
    better = "ended better than the best of then" if evidence.is_single else "would have extended the front of then"
    numbers = (
        f"{told.wrong} of {told.audited} trials that were let finish to check the pruner {better}, so it errs in "
        f"{told.low:.1%} to {told.high:.0%} of its stops"
    )
    if told.low <= WRONG_MAX:
        return InsufficientData(f"{numbers[0].upper()}{numbers[1:]}.")
    advice = (
        "Make the pruner more patient: a lower `chance` for pruner auto, a larger `min` or a smaller `eta` for asha; "
        "or leave it out with `pruner: none`. Trials that were stopped can be run again with `tune enqueue`."
    )
    return [HealthFinding("warn", f"Pruning is too eager: {numbers}.", advice)]


def failures(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Failures are clustered: a threshold or a choice of one parameter within which trials fail at least twice as
    often as outside (Fisher's exact test, one-sided, below 0.01 after Bonferroni's correction for all rules tried).

    Failures of the machine count only where memory ran out. From 5 failed and 5 other trials on.
    """
    failed = [one for one in evidence.failed if _is_own(one.failure)]
    others = [one for one in evidence.sampled if one.state in ("complete", "pruned")]
    if len(failed) < FAILED_FROM or len(others) < OTHERS_FROM:
        few = f"{len(failed)} trials failed for reasons of their own" if failed else "No trial failed by itself"
        return InsufficientData(f"{few}.", bool(failed) and len(others) < OTHERS_FROM)
    rules = [rule for name in _names(failed, others) for rule in _rules(name, failed, others)]
    best = min(rules, key=lambda rule: rule.chance, default=None)
    if best is None or best.chance * len(rules) >= ALPHA:
        return InsufficientData(f"{evidence.study.counts.failed} trials failed, in no particular part of the space.")
    return [_clustered(best, len(rules))]


@dataclass(frozen=True, slots=True)
class _ParameterRule:
    """A part of one parameter's values, and who is in it."""

    text: str
    failed: int
    of_failed: int
    others: int
    of_others: int

    @property
    def chance(self) -> float:
        """That so many failures fall into it by accident; 1 where it holds too few to matter."""
        inside = self.failed / max(self.failed + self.others, 1)
        out_failed, out_others = self.of_failed - self.failed, self.of_others - self.others
        outside = out_failed / max(out_failed + out_others, 1)
        if self.failed < FAILED_FROM or inside < LIFT * outside:
            return 1.0
        from scipy.stats import fisher_exact  # brings all of scipy.stats, for which few questions have to wait

        table = [[self.failed, self.others], [out_failed, out_others]]
        return float(fisher_exact(table, alternative="greater").pvalue)


def _clustered(rule: _ParameterRule, tried: int) -> HealthFinding:
    return HealthFinding(
        "warn",
        f"Failures are clustered at {rule.text}: {rule.failed} of {rule.of_failed} failed trials lie there, but only "
        f"{rule.others} of {rule.of_others} others (p = {min(1.0, rule.chance * tried):.1g} after correction for "
        f"{tried} rules).",
        "See what fails there with `tune show STUDY TRIAL`. Mend it, or leave that part out in a new study, with this "
        "one in its `warm_start`.",
    )


def _is_own(failure: str | None) -> bool:
    if failure is None or failure not in set(Failure):
        return True
    return not Failure(failure).is_of_the_machine or failure == Failure.HOST_OOM


def _names(failed: Sequence[SeenTrial], others: Sequence[SeenTrial]) -> list[str]:
    return list(dict.fromkeys(name for one in (*failed, *others) for name in one.params))


def _rules(name: str, failed: Sequence[SeenTrial], others: Sequence[SeenTrial]) -> Iterator[_ParameterRule]:
    bad = [one.params[name] for one in failed if name in one.params]
    good = [one.params[name] for one in others if name in one.params]
    kinds = {one.distributions[name] for one in (*failed, *others) if name in one.distributions}
    if any(isinstance(kind, CategoricalDistribution) for kind in kinds):
        for choice in dict.fromkeys(map(_key, bad)):
            inside = (sum(_key(value) == choice for value in values) for values in (bad, good))
            counts = tuple(inside)
            yield _ParameterRule(f"{name} = {choice[1]}", counts[0], len(failed), counts[1], len(others))
        return
    numbers = np.array([float(value) for value in bad]), np.array([float(value) for value in good])  # type: ignore[arg-type]
    for cut in _cuts(np.concatenate(numbers), next(iter(kinds), None)):
        low = tuple(int((values <= cut).sum()) for values in numbers)
        yield _ParameterRule(f"{name} ≤ {shown(cut)}", low[0], len(failed), low[1], len(others))
        high = tuple(int((values >= cut).sum()) for values in numbers)
        yield _ParameterRule(f"{name} ≥ {shown(cut)}", high[0], len(failed), high[1], len(others))


def _key(value: ParamValue) -> tuple[str, str]:
    return type(value).__name__, str(value)


def _cuts(values: np.ndarray, kind: BaseDistribution | None) -> list[float]:
    """Thresholds with about as many values between any two."""
    if not len(values) or kind is None or place(kind, float(values[0])) is None:
        return []
    return sorted({float(cut) for cut in np.quantile(values, np.arange(1, CUTS + 1) / (CUTS + 1), method="nearest")})


def idle(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Workers are idle: a quarter and more of the slots' time passes without a trial on them.

    Slots are the most trials that ran at a time. Looked at are the newest 2,000 attempts, from the first start to
    the last opening, without gaps of a minute and more, so that neither pauses nor the end of a study count. From 20
    attempts per slot and a minute on.
    """
    use = _use(evidence.attempts, evidence.now) if evidence.now is not None else None
    if use is None or len(evidence.attempts) < IDLE_FROM * use.slots or use.window_s < WINDOW_MIN_S or use.slots < 2:
        return InsufficientData("Asked from 20 attempts per slot, two slots and a minute on.", True)
    share = 1 - use.busy_s / (use.slots * use.window_s)
    if share < IDLE_MAX:
        return InsufficientData(f"{use.slots} slots were in use {1 - share:.0%} of {duration(use.window_s)}.")
    text = f"{share:.0%} of the time of {use.slots} slots over {duration(use.window_s)} went by without a trial"
    wait = use.waited_s / (use.slots * use.window_s)
    if wait > share / 2:
        each = duration(use.waited_s / max(1, len(evidence.attempts)))
        cause = f"; most of it trials waited for a worker to start, {each} each"
        advice = (
            "Workers are warm from the second trial on, unless `environment.isolation` is `process` or they keep "
            "dying; see whether other studies hold the cluster."
        )
    else:
        cause = "; trials end faster than new ones are proposed and started"
        advice = "Let each trial do more, or lower `parallelism`; `sampler: random` and `tpe` propose the fastest."
    return [HealthFinding("warn", f"{text}{cause}.", advice, _fewer(evidence, use, share))]


def _fewer(evidence: Evidence, use: _Use, share: float) -> Action | None:
    fewer = max(1, math.ceil(use.slots * (1 - share) * 1.25))
    if evidence.study.coordinator is None or fewer >= use.slots:
        return None
    return Action("parallelism", {"trials": fewer}, f"Run {fewer} at a time")


@dataclass(frozen=True, slots=True)
class _Use:
    slots: int
    busy_s: float
    waited_s: float
    window_s: float


def _use(attempts: Sequence[OccupiedTime], now: datetime) -> _Use | None:
    started = [one for one in attempts if one.started_at is not None]
    if len(started) < 2:
        return None
    begin = min(one.started_at for one in started if one.started_at is not None).timestamp()
    end = max(one.opened_at for one in attempts).timestamp()
    busy = _clipped([(one.started_at, one.ended_at or now) for one in started], begin, end)
    held = _clipped([(one.opened_at, one.ended_at or now) for one in attempts], begin, end)
    waited = _clipped([(one.opened_at, one.started_at or one.ended_at or now) for one in attempts], begin, end)
    window_s, _ = _sweep(held)
    _, slots = _sweep(busy)
    return _Use(slots, float((busy[:, 1] - busy[:, 0]).sum()), float((waited[:, 1] - waited[:, 0]).sum()), window_s)


def _clipped(spans: Sequence[tuple[datetime | None, datetime]], begin: float, end: float) -> np.ndarray:
    """Shape (spans, 2), seconds."""
    rows = [(start.timestamp(), stop.timestamp()) for start, stop in spans if start is not None]
    out: np.ndarray = np.array(rows, dtype=float).reshape(-1, 2).clip(begin, end)
    return out


def _sweep(spans: np.ndarray) -> tuple[float, int]:
    """How long spans were open, pauses left out, and how many were at a time at most."""
    times = np.concatenate([spans[:, 0], spans[:, 1]])
    steps = np.concatenate([np.ones(len(spans)), -np.ones(len(spans))])
    order = np.lexsort((steps, times))  # ends before beginnings
    lengths, open_then = np.diff(times[order]), np.cumsum(steps[order])
    counted = (open_then[:-1] > 0) | (lengths < PAUSE_S)
    return float(lengths[counted].sum()), int(open_then.max(initial=0))
