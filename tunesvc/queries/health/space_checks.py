"""Checks of the search space: too narrow, too wide. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from scipy.special import bdtrc

from tunesvc.queries.health.evidence import Evidence, SeenTrial
from tunesvc.queries.health.finding import Action, HealthFinding, InsufficientData
from tunesvc.space.cardinality import count_values
from tunesvc.space.search_space import place, to_distribution
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter
from tunesvc.util.formatting import number as shown

NUMERIC = FloatParameter | IntParameter

EDGE = 0.05
"""Outer share of a range that counts as its border; of few integers, the outermost one."""
TOP = 10
"""Number of best trials that should not lie at a border."""
NARROW_FROM = 30
"""Fewest complete trials."""
ALPHA = 0.01
"""Probability of a false alarm per check, over all parameters."""
VALUES_MIN = 4
"""Fewest different values; of fewer, one is often at the border."""

WIDE_FROM = 80
"""Fewest complete trials."""
NARROW_PART = 0.15
"""Largest share of the range that the best trials occupy."""
WASTED_MIN = 1 / 3
"""Smallest share of the later trials outside of that part."""


def narrow(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find ranges whose best trials lie at a border.

    Criterion: at least half of the ten best trials, including the best, lie in the outer 5 % of a
    range, which has a probability below 0.01 (binomial tail, over all borders) if the parameter
    does not matter. Needs 30 complete trials.
    """
    ranges = _ranges(evidence, NARROW_FROM)
    if isinstance(ranges, InsufficientData):
        return ranges
    findings = []
    for name, kind in ranges.items():
        border = _border(evidence.best, name, kind, len(ranges))
        if border is not None:
            findings.append(_narrow(border))
    if not findings:
        names = _list_names(list(ranges))
        return InsufficientData(f"The {TOP} best trials lie within the ranges of {names}.")
    return findings


@dataclass(frozen=True, slots=True)
class _Border:
    name: str
    kind: NUMERIC
    at_top: bool
    near: int
    of: int


def _border(
    best: Sequence[SeenTrial],
    name: str,
    kind: NUMERIC,
    parameters: int,
) -> _Border | None:
    values = count_values(kind)
    if values is not None and values < VALUES_MIN:
        return None
    edge = EDGE if values is None else max(EDGE, 0.5 / (values - 1))
    top = [one for one in best if name in one.params][:TOP]
    distribution = to_distribution(kind)
    normalized = [place(distribution, one.params[name]) for one in top]
    positions = [at for at in normalized if at is not None]
    if len(positions) < TOP or top[0].number != best[0].number:
        return None
    for at_top in (False, True):
        near = [at >= 1 - edge if at_top else at <= edge for at in positions]
        tail = float(
            bdtrc(
                sum(near) - 1,
                len(near),
                _border_share(kind, edge, at_top),
            )
        )
        chance = tail * 2 * parameters  # Bonferroni: two borders for each parameter
        if near[0] and 2 * sum(near) >= len(near) and chance < ALPHA:
            return _Border(name, kind, at_top, sum(near), len(near))
    return None


def _border_share(kind: NUMERIC, edge: float, at_top: bool) -> float:
    """Return the share of uniformly drawn values that lie at the border."""
    values = count_values(kind)
    if values is None:
        return edge
    if isinstance(kind, IntParameter) and kind.log:
        # An integer on a log scale covers half a step on both sides.
        bound = kind.max if at_top else kind.min
        width = math.log((kind.max + 0.5) / (kind.min - 0.5))
        return max(edge, math.log((bound + 0.5) / (bound - 0.5)) / width)
    return (math.floor(edge * (values - 1) + 1e-9) + 1) / values


def _narrow(border: _Border) -> HealthFinding:
    kind, name = border.kind, border.name
    bound = kind.max if border.at_top else kind.min
    side = "upper" if border.at_top else "lower"
    text = (
        f"{name}: {border.near} of the {border.of} best trials, the best one too, lie at the "
        f"{side} end of its range, {shown(float(bound))}; better values may lie beyond it."
    )
    wider = _widened(kind, border.at_top)
    if wider is None:
        advice = f"{shown(float(bound))} may be all that makes sense; else widen the range."
        return HealthFinding("note", text, advice)
    end = "max" if border.at_top else "min"
    to = shown(float(wider))
    advice = f"Widen it, to {end}: {to} for example. The study continues with all its trials."
    action = Action(
        "widen",
        {"parameters": {name: {end: wider}}},
        f"Widen {name} to {to}",
    )
    return HealthFinding("warn", text, advice, action)


def _widened(kind: NUMERIC, at_top: bool) -> float | None:
    """Return a bound further out by half of the range.

    None if the present bound is a natural one: 0, or 1 for a share.
    """
    if kind.log:
        return _widened_log(kind, at_top)
    is_natural_min = not at_top and kind.min == 0
    is_natural_max = at_top and kind.max == 1 and kind.min >= 0
    if is_natural_min or is_natural_max:
        return None
    step = Decimal(str(kind.step or (1 if isinstance(kind, IntParameter) else 0)))
    low = Decimal(str(kind.min))
    high = Decimal(str(kind.max))
    width = (high - low) / 2
    if step:
        width = max(Decimal(1), width // step) * step
    bound = high + width if at_top else low - width
    if not at_top and kind.min > 0 > bound:  # a positive parameter stays positive
        bound = low % step if step else Decimal(0)
    if float(bound) in (kind.min, kind.max):
        return None
    return int(bound) if isinstance(kind, IntParameter) else float(bound)


def _widened_log(kind: NUMERIC, at_top: bool) -> float | None:
    factor = min(10.0, math.sqrt(kind.max / kind.min))
    bound = float(f"{kind.max * factor if at_top else kind.min / factor:.2g}")
    if not isinstance(kind, IntParameter):
        return bound
    whole = round(bound)
    return whole if kind.min > whole >= 1 or whole > kind.max else None


def wide(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Find ranges that are too wide.

    The best trials of the first half lie in a small part of a range, as do those of the second
    half, yet a third or more of the second half lies elsewhere.

    Criterion: the part contains all of the best tenth of the first half, covers at most 15 % of
    the range, and, with a margin of 7.5 % on both sides, contains all of the best tenth (at least
    10) of the second half, which has a probability below 0.01 by chance, over all parameters.
    Needs 80 complete trials.
    """
    ranges = _ranges(evidence, WIDE_FROM)
    if isinstance(ranges, InsufficientData):
        return ranges
    findings = []
    for name, kind in ranges.items():
        part = _good_part(evidence, name, kind, len(ranges))
        if part is not None:
            findings.append(_wide(part))
    if not findings:
        text = "Few trials go to parts of a range in which no good one ever was."
        return InsufficientData(text)
    return findings


@dataclass(frozen=True, slots=True)
class _RangePart:
    name: str
    low: object
    high: object
    width: float
    wasted: int
    of: int


def _good_part(
    evidence: Evidence,
    name: str,
    kind: NUMERIC,
    parameters: int,
) -> _RangePart | None:
    trials = [one for one in evidence.complete() if name in one.params]
    early = trials[: len(trials) // 2]
    late = trials[len(trials) // 2 :]
    first = _best_tenth(evidence, early)
    second = _best_tenth(evidence, late)
    distribution = to_distribution(kind)

    def position(trial: SeenTrial) -> float:
        return place(distribution, trial.params[name]) or 0.0

    if len(first) < TOP or len(second) < TOP:
        return None
    low = min(map(position, first))
    high = max(map(position, first))
    width = high - low
    margin = max(width, NARROW_PART) / 2
    low, high = low - margin, high + margin
    wasted = sum(not low <= position(one) <= high for one in late)
    chance = (1 - wasted / len(late)) ** len(second) * parameters
    is_within = all(low <= position(one) <= high for one in second)
    if width > NARROW_PART or not is_within:
        return None
    if wasted < WASTED_MIN * len(late) or chance >= ALPHA:
        return None
    values = [one.params[name] for one in (*first, *second)]
    values.sort(key=lambda value: float(value or 0))
    return _RangePart(name, values[0], values[-1], width, wasted, len(late))


def _best_tenth(evidence: Evidence, trials: Sequence[SeenTrial]) -> list[SeenTrial]:
    ranked = sorted(trials, key=lambda one: evidence.loss(one.value or 0.0))
    return ranked[: max(TOP, len(ranked) // 10)]


def _wide(part: _RangePart) -> HealthFinding:
    low = _end_text(part.low)
    high = _end_text(part.high)
    text = (
        f"{part.name}: all good trials lie between {low} and {high}, {part.width:.0%} of its "
        f"range, but {part.wasted / part.of:.0%} of the later trials went elsewhere."
    )
    advice = (
        "A range of a study with trials can only grow. Start a new study with a narrower one, and "
        "name this study in its `warm_start`, so that it starts with the known results."
    )
    return HealthFinding("note", text, advice)


def _end_text(end: object) -> str:
    return shown(float(end)) if isinstance(end, (int, float)) else str(end)


def _ranges(evidence: Evidence, least: int) -> dict[str, NUMERIC] | InsufficientData:
    """Return the parameters that are numbers in a range, if `least` trials are complete."""
    spec = evidence.study.spec
    if not evidence.is_single:
        text = "Not asked of a study with several objectives"
        return InsufficientData(f"{text}: its best trials may well lie at the ends.")
    if spec is None or spec.define_by_run:
        return InsufficientData("The study's file declares no ranges.")
    ranges: dict[str, NUMERIC] = {
        name: kind
        for name, kind in spec.parameters.items()
        if not isinstance(kind, CategoricalParameter) and kind.min < kind.max
    }
    if not ranges:
        return InsufficientData("No parameter has a range; all are choices.")
    complete = evidence.study.counts.complete
    if complete < least:
        text = f"Asked from {least} complete trials on; there are {complete}."
        return InsufficientData(text, True)
    return ranges


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} others" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
