"""Searches that end because every configuration was tried."""

from __future__ import annotations

from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

_COMPLETE = ("grid", "brute")
"""Samplers that try every configuration once, in an order that their seed fixes."""


def trials_max(spec: StudySpec, space: Space) -> int | None:
    """Return the number of distinct trials after which nothing is left to try.

    None if the space has no end, or if results are noisy.
    """
    is_finite = not spec.define_by_run and (spec.seeds is None or is_complete(spec))
    is_finite = is_finite and spec.search is None  # members may have equal parameters
    return space.size if is_finite else None


def is_exhausted(spec: StudySpec, trials: int) -> bool:
    """Return True if so many trials leave nothing to try, until the space is widened."""
    configurations = trials_max(spec, Space(spec.parameters))
    return configurations is not None and trials >= configurations


def is_complete(spec: StudySpec) -> bool:
    """True if the sampler tries every configuration once and learns nothing."""
    return spec.sampler.name in _COMPLETE


def is_distinct(spec: StudySpec, space: Space) -> bool:
    """True if no configuration may be proposed twice, so that the budget can try them all."""
    may_repeat = spec.define_by_run or spec.seeds is not None or is_complete(spec)
    may_repeat = may_repeat or spec.search is not None
    return not may_repeat and space.is_listed(spec.budget.trials)
