"""What the model and the statistics believe of a study, at a bounded cost however large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import FrozenTrial
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import PARTS, freeze
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import trials
from tunesvc.queries.rows import StudyView
from tunesvc.queries.trials.trial_results import Results, subsample_best
from tunesvc.queries.trials.tried_parameters import CompletedTrials

if TYPE_CHECKING:
    from tunesvc.search.analysis.importance import Share
    from tunesvc.search.analysis.model_surface import ModelSurface

LEARNED_MAX = 1_000
"""Trials that the model is shown: of more the best, and an even choice of the rest."""


def importance_shares(tried: CompletedTrials) -> tuple[Share, ...]:
    """Each parameter's share in the differences of the objective; nothing with too few complete trials."""
    from tunesvc.search.analysis.importance import importances

    found = [one for one in tried.parameters if one.low < one.high]
    return importances(
        [one.name for one in found], [one.places() for one in found], [len(one.choices) for one in found], tried.costs
    )


def get_surface(database: Database, view: StudyView, results: Results, index: int = 0) -> ModelSurface | None:
    """The model of one objective, fitted to complete, feasible trials; None while there is nothing to fit it to."""
    from tunesvc.search.analysis.model_surface import learn

    places = np.flatnonzero(results.candidates() & results.done(index))
    costs = results.costs(view.objectives[index], index)[places]
    places = places[subsample_best(costs, results.numbers[places], LEARNED_MAX)]
    numbers = [int(number) for number in results.numbers[places]]
    return learn(frozen(database, view.study_id, numbers, index), view.objectives[index].goal, view.shared_seeds)


def frozen(database: Database, study_id: int, numbers: list[int], index: int | None = None) -> list[FrozenTrial]:
    """Trials as Optuna bears them; with one objective's value alone where `index` says which."""
    ids = sa.cast([trial_id(study_id, number) for number in numbers], pg.ARRAY(sa.BigInteger))
    objectives: Any = trials.c["values"] if index is None else pg.array([trials.c["values"][index + 1]])
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
        .where(trials.c.trial_id == sa.any_(ids))
        .order_by(trials.c.number)
    )
    with database.engine.connect() as connection:
        return [freeze(row) for row in connection.execute(query)]
