"""Searches that end because every configuration was tried."""

from __future__ import annotations

from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

_COMPLETE = ("grid", "brute")
"""They try every configuration once, in an order that their seed fixes."""


def trials_max(spec: StudySpec, space: Space) -> int | None:
    """After how many different trials nothing is left to try; None when there is no end, or results are noisy."""
    is_finite = not spec.define_by_run and (spec.seeds is None or is_complete(spec))
    return space.size if is_finite else None


def is_exhausted(spec: StudySpec, trials: int) -> bool:
    """Return whether so many trials leave nothing to try: more budget changes nothing then, a wider space does."""
    configurations = trials_max(spec, Space(spec.parameters))
    return configurations is not None and trials >= configurations


def is_complete(spec: StudySpec) -> bool:
    """Whether the sampler tries every configuration once, and learns nothing on the way."""
    return spec.sampler.name in _COMPLETE


def is_distinct(spec: StudySpec, space: Space) -> bool:
    """Whether no configuration may be proposed twice, so that the budget is enough to try them all."""
    may_repeat = spec.define_by_run or spec.seeds is not None or is_complete(spec)
    return not may_repeat and space.is_listed(spec.budget.trials)
