"""Effect of each of a trial's parameters, compared with the study's average or its best trial.

The effects are those of a model that is fitted to the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesvc.db.engine.database import Database
from tunesvc.queries.rows import Objective, StudyView, TrialRow
from tunesvc.queries.trials.trial_table import list_best_trials

if TYPE_CHECKING:
    from tunesvc.search.analysis.attribution import Attribution, ParameterEffect
    from tunesvc.search.analysis.model_surface import ModelSurface

NAMED_MAX = 5
"""Parameters named in a sentence."""


def best_other(database: Database, view: StudyView, number: int) -> TrialRow | None:
    """Return the best observed trial; None if it is this one, or with several objectives."""
    if len(view.objectives) > 1:
        return None
    best = list_best_trials(database, view.study_id)
    return best[0] if best and best[0].number != number else None


def get_attribution(
    surface: ModelSurface | None,
    row: TrialRow,
    other: TrialRow | None = None,
) -> Attribution | None:
    """Return the effect of each parameter, against another trial or against the average.

    None without a model, and for pruned and failed trials. The model is fitted to complete trials,
    so it would predict good values in regions with none of them.
    """
    if surface is None or not row.params or row.state in ("pruned", "failed", "stopped"):
        return None
    from tunesvc.search.analysis.attribution import attribute

    if other is None:
        return attribute(surface, row.params)
    return replace(attribute(surface, row.params, other.params), against=other.number)


def describe_attribution(objective: Objective, found: Attribution) -> Iterator[str]:
    """Yield sentences about the effects."""
    average = "the average trial of the study"
    other = average if found.against is None else f"trial {found.against}, the best observed"
    yield (
        f"A model of {found.learned} trials expects {objective.name} = {found.predicted:.4g} "
        f"± {found.deviation:.2g} for these parameters, and {found.reference:.4g} for {other}."
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
