"""Model of a study's objective and importance of its parameters, at a bounded cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import PARTS, freeze
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import trials
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import is_any_of
from tunesvc.queries.trials.trial_results import Results
from tunesvc.queries.trials.tried_parameters import CompletedTrials

if TYPE_CHECKING:
    from tunesvc.search.analysis.importance import Share
    from tunesvc.search.analysis.model_surface import ModelSurface

LEARNED_MAX = 1_000
"""Most trials that the model is fitted to: the best ones, and an even sample of the rest."""


def importance_shares(tried: CompletedTrials) -> tuple[Share, ...]:
    """Return each parameter's share of the objective's variance; empty with too few trials."""
    from tunesvc.search.analysis.importance import importances

    varied = [parameter for parameter in tried.parameters if parameter.low < parameter.high]
    names = [parameter.name for parameter in varied]
    positions = [parameter.normalized() for parameter in varied]
    choices = [len(parameter.choices) for parameter in varied]
    return importances(names, positions, choices, tried.losses)


def get_surface(
    database: Database,
    view: StudyView,
    results: Results,
    index: int = 0,
) -> ModelSurface | None:
    """Return a model of one objective, fitted to complete, feasible trials; None with too few.

    None also for a population, whose values depend on more than the last parameters.
    """
    from tunesvc.search.analysis.importance import TRIALS_MIN
    from tunesvc.search.analysis.model_surface import learn

    if view.has_population:
        return None
    objective = view.objectives[index]
    losses = results.losses(objective, index)
    rows = results.best_rows(
        results.candidates() & results.done(index),
        losses,
        LEARNED_MAX,
    )
    numbers = results.numbers[rows].tolist()
    trials = frozen(database, view.study_id, numbers, index)
    surface = learn(trials, objective.goal, view.shared_blocks)
    return None if surface is None or len(surface) < TRIALS_MIN else surface


def frozen(
    database: Database,
    study_id: int,
    numbers: list[int],
    index: int | None = None,
) -> list[FrozenTrial]:
    """Return trials as Optuna's frozen trials; with `index`, only with that objective's value."""
    ids = [trial_id(study_id, number) for number in numbers]
    objectives: Any = trials.c["values"]
    if index is not None:
        objectives = pg.array([objectives[index + 1]])
    query = (
        sa.select(
            trials.c.trial_id,
            trials.c.number,
            trials.c.state,
            objectives.label("objectives"),
            trials.c.started_at,
            trials.c.ended_at,
            *(sa.literal_column(query).label(name) for name, query in PARTS.items()),
        )
        .where(is_any_of(trials.c.trial_id, ids))
        .order_by(trials.c.number)
    )
    return [freeze(row) for row in database.rows(query)]
