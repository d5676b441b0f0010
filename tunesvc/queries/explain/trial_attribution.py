"""Which of a trial's parameters made it good or bad, against the study's average trial: told by the study's model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesvc.queries.rows import Objective, TrialRow

if TYPE_CHECKING:
    from tunesvc.search.analysis.attribution import Attribution
    from tunesvc.search.analysis.model_surface import ModelSurface

TOLD = 5
"""Parameters that a sentence names."""


def get_attribution(surface: ModelSurface | None, row: TrialRow) -> Attribution | None:
    """What each of its parameters did; None while the model has too few trials to learn from.

    Also None for a trial that was pruned or has failed. The model learns from complete ones, and would promise a good
    value where only such trials were.
    """
    from tunesvc.search.analysis.importance import TRIALS_MIN

    if surface is None or len(surface) < TRIALS_MIN or not row.params or row.state in ("pruned", "failed", "stopped"):
        return None
    from tunesvc.search.analysis.attribution import attribute

    return attribute(surface, row.params)


def describe_attribution(objective: Objective, found: Attribution) -> Iterator[str]:
    """The same as sentences."""
    yield (
        f"A model of {found.learned} trials expects {objective.name} = {found.predicted:.4g} ± {found.deviation:.2g} "
        f"for these parameters, and {found.average:.4g} for the average trial of the study."
    )
    good = [part for part in found.parts if (part.amount > 0) == objective.maximize and part.amount]
    bad = [part for part in found.parts if (part.amount > 0) != objective.maximize and part.amount]
    for word, parts in (("better", good), ("worse", bad)):
        if parts:
            named = ", ".join(
                f"{one.name}{'' if one.exists else ' (absent)'} {one.amount:+.3g}" for one in parts[:TOLD]
            )
            yield f"What made it {word}: {named}."
