"""Effect of each of a trial's parameters, compared with the study's average trial.

The effects are those of a model that is fitted to the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesvc.queries.rows import Objective, TrialRow

if TYPE_CHECKING:
    from tunesvc.search.analysis.attribution import Attribution, ParameterEffect
    from tunesvc.search.analysis.model_surface import ModelSurface

NAMED_MAX = 5
"""Parameters named in a sentence."""


def get_attribution(surface: ModelSurface | None, row: TrialRow) -> Attribution | None:
    """Return the effect of each parameter; None while the model has too few trials.

    Also None for pruned and failed trials. The model is fitted to complete trials, so it would
    predict good values in regions with none of them.
    """
    from tunesvc.search.analysis.importance import TRIALS_MIN

    if surface is None or len(surface) < TRIALS_MIN:
        return None
    if not row.params or row.state in ("pruned", "failed", "stopped"):
        return None
    from tunesvc.search.analysis.attribution import attribute

    return attribute(surface, row.params)


def describe_attribution(objective: Objective, found: Attribution) -> Iterator[str]:
    """Yield sentences about the effects."""
    yield (
        f"A model of {found.learned} trials expects {objective.name} = {found.predicted:.4g} "
        f"± {found.deviation:.2g} for these parameters, and {found.average:.4g} for the average "
        "trial of the study."
    )
    effects = [part for part in found.parts if part.amount]
    better = [part for part in effects if (part.amount > 0) == objective.maximize]
    worse = [part for part in effects if (part.amount > 0) != objective.maximize]
    if better:
        yield f"What made it better: {_list_effects(better)}."
    if worse:
        yield f"What made it worse: {_list_effects(worse)}."


def _list_effects(effects: Sequence[ParameterEffect]) -> str:
    return ", ".join(_describe_effect(effect) for effect in effects[:NAMED_MAX])


def _describe_effect(effect: ParameterEffect) -> str:
    absent = "" if effect.exists else " (absent)"
    return f"{effect.name}{absent} {effect.amount:+.3g}"
