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
"""The outer part of a range that counts as its border; of a few whole numbers, the outermost of them."""
TOP = 10
"""The best trials, which should not lie at a border."""
NARROW_FROM = 30
"""Complete trials."""
ALPHA = 0.01
"""Chance of a false alarm per check, over all parameters."""
VALUES_MIN = 4
"""Of so few different values one is at the border as a matter of course."""

WIDE_FROM = 80
"""Complete trials."""
NARROW_PART = 0.15
"""The best trials occupy no more of the range than this."""
WASTED_MIN = 1 / 3
"""Share of the later trials that still went elsewhere."""


def narrow(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Best at a border: most of the ten best trials, the best among them, lie in the outer 5 % of a range.

    Criterion: at least half of the ten best lie at one border, more than there would be if the parameter did not
    matter (binomial tail below 0.01 over all borders). From 30 complete trials on.
    """
    ranges = _ranges(evidence)
    if isinstance(ranges, InsufficientData):
        return ranges
    if (early := _too_early(evidence, NARROW_FROM)) is not None:
        return early
    found = [border for name, kind in ranges.items() if (border := _border(evidence.best, name, kind, len(ranges)))]
    if not found:
        return InsufficientData(f"The {TOP} best trials lie within the ranges of {_these(list(ranges))}.")
    return [_narrow(border) for border in found]


@dataclass(frozen=True, slots=True)
class _Border:
    name: str
    kind: NUMERIC
    at_top: bool
    near: int
    of: int


def _border(best: Sequence[SeenTrial], name: str, kind: NUMERIC, parameters: int) -> _Border | None:
    values = count_values(kind)
    if values is not None and values < VALUES_MIN:
        return None
    edge = EDGE if values is None else max(EDGE, 0.5 / (values - 1))
    having = [one for one in best if name in one.params][:TOP]
    places = [at for one in having if (at := place(to_distribution(kind), one.params[name])) is not None]
    if len(places) < TOP or having[0].number != best[0].number:
        return None
    for at_top in (False, True):
        near = [at >= 1 - edge if at_top else at <= edge for at in places]
        chance = float(bdtrc(sum(near) - 1, len(near), _share(kind, edge, at_top))) * 2 * parameters
        if near[0] and 2 * sum(near) >= len(near) and chance < ALPHA:
            return _Border(name, kind, at_top, sum(near), len(near))
    return None


def _share(kind: NUMERIC, edge: float, at_top: bool) -> float:
    """How much of what is drawn evenly lies at the border."""
    values = count_values(kind)
    if values is None:
        return edge
    if isinstance(kind, IntParameter) and kind.log:
        bound = kind.max if at_top else kind.min
        return max(edge, math.log((bound + 0.5) / (bound - 0.5)) / math.log((kind.max + 0.5) / (kind.min - 0.5)))
    return (math.floor(edge * (values - 1) + 1e-9) + 1) / values


def _narrow(border: _Border) -> HealthFinding:
    kind, name = border.kind, border.name
    bound = kind.max if border.at_top else kind.min
    side = "upper" if border.at_top else "lower"
    text = (
        f"{name}: {border.near} of the {border.of} best trials, the best one too, lie at the {side} end of its range, "
        f"{shown(float(bound))}; better values may lie beyond it."
    )
    wider = _widened(kind, border.at_top)
    if wider is None:
        return HealthFinding("note", text, f"{shown(float(bound))} may be all that makes sense; else widen the range.")
    end = "max" if border.at_top else "min"
    advice = f"Widen it, to {end}: {shown(float(wider))} for example. The study goes on with all its trials."
    action = Action("widen", {"parameters": {name: {end: wider}}}, f"Widen {name} to {shown(float(wider))}")
    return HealthFinding("warn", text, advice, action)


def _widened(kind: NUMERIC, at_top: bool) -> float | None:
    """A bound further out, by half of the range; None where the present one is a natural end: 0, or 1 for a share."""
    if not kind.log and ((not at_top and kind.min == 0) or (at_top and kind.max == 1 and kind.min >= 0)):
        return None
    if kind.log:
        factor = min(10.0, math.sqrt(kind.max / kind.min))
        wider = kind.max * factor if at_top else kind.min / factor
        rounded = float(f"{wider:.2g}")
        if isinstance(kind, IntParameter):
            whole = round(rounded)
            return whole if kind.min > whole >= 1 or whole > kind.max else None
        return rounded
    step = Decimal(str(kind.step or (1 if isinstance(kind, IntParameter) else 0)))
    width = (Decimal(str(kind.max)) - Decimal(str(kind.min))) / 2
    if step:
        width = max(Decimal(1), width // step) * step
    bound = Decimal(str(kind.max)) + width if at_top else Decimal(str(kind.min)) - width
    if not at_top and kind.min > 0 > bound:  # what is positive stays so
        bound = Decimal(str(kind.min)) % step if step else Decimal(0)
    if float(bound) in (kind.min, kind.max):
        return None
    if isinstance(kind, IntParameter):
        return int(bound)
    return float(bound)


def wide(evidence: Evidence) -> Sequence[HealthFinding] | InsufficientData:
    """Too wide: the best trials of the first half lie in a small part of a range, and so do those of the second half,
    yet a third and more of the second half went elsewhere.

    Criterion: the part holds all of the best tenth of the first half, covers at most 15 % of the range, and, with a
    margin of 7.5 % on both sides, holds all of the best tenth (10 at least) of the second half, which would come
    about by chance with a probability below 0.01 over all parameters. From 80 complete trials on.
    """
    ranges = _ranges(evidence)
    if isinstance(ranges, InsufficientData):
        return ranges
    if (early := _too_early(evidence, WIDE_FROM)) is not None:
        return early
    found = [part for name, kind in ranges.items() if (part := _part(evidence, name, kind, len(ranges)))]
    if not found:
        return InsufficientData("Few trials go to parts of a range in which no good one ever was.")
    return [_wide(part) for part in found]


@dataclass(frozen=True, slots=True)
class _RangePart:
    name: str
    low: object
    high: object
    width: float
    wasted: int
    of: int


def _part(evidence: Evidence, name: str, kind: NUMERIC, parameters: int) -> _RangePart | None:
    having = [one for one in evidence.complete() if name in one.params]
    early, late = having[: len(having) // 2], having[len(having) // 2 :]
    first, second = _top(evidence, early), _top(evidence, late)
    distribution = to_distribution(kind)

    def where(one: SeenTrial) -> float:
        return place(distribution, one.params[name]) or 0.0

    if len(first) < TOP or len(second) < TOP:
        return None
    low, high = min(map(where, first)), max(map(where, first))
    width = high - low
    margin = max(width, NARROW_PART) / 2
    low, high = low - margin, high + margin
    wasted = sum(not low <= where(one) <= high for one in late)
    chance = (1 - wasted / len(late)) ** len(second) * parameters
    within = all(low <= where(one) <= high for one in second)
    if width > NARROW_PART or not within or wasted < WASTED_MIN * len(late) or chance >= ALPHA:
        return None
    values = sorted((one.params[name] for one in (*first, *second)), key=lambda value: float(value or 0))
    return _RangePart(name, values[0], values[-1], width, wasted, len(late))


def _top(evidence: Evidence, trials: Sequence[SeenTrial]) -> list[SeenTrial]:
    ranked = sorted(trials, key=lambda one: evidence.sign * (one.value or 0.0))
    return ranked[: max(TOP, len(ranked) // 10)]


def _wide(part: _RangePart) -> HealthFinding:
    low, high = (shown(float(end)) if isinstance(end, (int, float)) else str(end) for end in (part.low, part.high))
    return HealthFinding(
        "note",
        f"{part.name}: all good trials lie between {low} and {high}, {part.width:.0%} of its range, but "
        f"{part.wasted / part.of:.0%} of the later trials went elsewhere.",
        "A range of a study with trials can only grow. Start a new study with a narrower one, and name this study in "
        "its `warm_start`, so that it begins with what is known.",
    )


def _ranges(evidence: Evidence) -> dict[str, NUMERIC] | InsufficientData:
    """Parameters that are numbers in a range."""
    spec = evidence.study.spec
    if not evidence.is_single:
        return InsufficientData(
            "Not asked of a study with several objectives: its best trials may well lie at the ends."
        )
    if spec is None or spec.define_by_run:
        return InsufficientData("The study's file declares no ranges.")
    ranges: dict[str, NUMERIC] = {
        name: kind
        for name, kind in spec.parameters.items()
        if not isinstance(kind, CategoricalParameter) and kind.min < kind.max
    }
    return ranges or InsufficientData("No parameter has a range; all are choices.")


def _too_early(evidence: Evidence, least: int) -> InsufficientData | None:
    there = evidence.study.counts.complete
    return (
        None if there >= least else InsufficientData(f"Asked from {least} complete trials on; there are {there}.", True)
    )


def _these(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} others" if len(names) > 6 else "")
