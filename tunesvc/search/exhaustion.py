"""Searches of spaces that may be exhausted: when they end, and what they may try again."""

from __future__ import annotations

from enum import Enum

from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

_COMPLETE = ("grid", "brute")
"""Samplers that try every configuration once, in an order that their seed fixes."""
_COMPARED_MAX = 2_000
"""Most configurations that are searched for an untried one if the budget cannot try them all."""


class Repetition(Enum):
    """Rule for proposing a configuration that was tried before."""

    NEVER = "never"
    """The budget can try all configurations."""
    DELIBERATE = "deliberate"
    """If the sampler repeats it deliberately, to tell its value from noise."""
    FREE = "free"
    """The space has no end, seeds are shared, or all are tried in a fixed order."""


def trials_max(spec: StudySpec, space: Space) -> int | None:
    """Return the number of distinct trials after which nothing is left to try.

    None if the space has no end, or if results are noisy.
    """
    is_finite = not spec.define_by_run and (spec.shared_blocks is None or is_complete(spec))
    is_finite = is_finite and spec.search is None  # members may have equal parameters
    return space.size if is_finite else None


def is_exhausted(spec: StudySpec, trials: int) -> bool:
    """Return True if so many trials leave nothing to try, until the space is widened."""
    configurations = trials_max(spec, Space(spec.parameters))
    return configurations is not None and trials >= configurations


def is_complete(spec: StudySpec) -> bool:
    """True if the sampler tries every configuration once and learns nothing."""
    return spec.sampler.name in _COMPLETE


def repetition(spec: StudySpec, space: Space) -> Repetition:
    """Return when a configuration may be proposed again."""
    if spec.define_by_run or spec.shared_blocks is not None or is_complete(spec):
        return Repetition.FREE
    if space.is_listed(spec.budget.trials):
        return Repetition.NEVER
    return Repetition.DELIBERATE if space.is_listed(_COMPARED_MAX) else Repetition.FREE
