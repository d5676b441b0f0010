"""Names that a study's trials are filtered, sorted and shown by: objectives, parameters, metrics, constraints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.db.schema.tables import trial_params
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import study_key
from tunesvc.queries.trials.filter_language import Names
from tunesvc.queries.trials.trial_metrics import attr_names


def names_of(database: Database, study: StudyView) -> Names:
    """The names that a study has beyond those of all studies; parameters in the order of its spec."""
    with database.engine.connect() as connection:
        drawn = _params(connection, study.study_id)
        attrs = attr_names(connection, study.study_id)
    declared = [] if study.spec is None else list(study.spec.parameters)
    order = [
        *(name for name in declared if name in drawn),
        *sorted(drawn.keys() - set(declared)),
    ]
    objectives = tuple(objective.name for objective in study.objectives)
    params = {name: drawn[name] for name in order}
    return Names(objectives, params, attrs.metrics, attrs.constraints, attrs.attrs)


def distributions(
    connection: sa.Connection,
    study_id: int,
    params: Iterable[str],
) -> dict[str, tuple[str, ...]]:
    """All distributions that parameters were drawn from, as Optuna's JSON: several, where a space was widened."""
    found: dict[str, tuple[str, ...]] = {}
    for name in params:
        query = _of(study_id, name).with_only_columns(trial_params.c.distribution).distinct()
        found[name] = tuple(connection.execute(query).scalars())
    return found


def _of(study_id: int, name: str) -> sa.Select[Any]:
    return sa.select(trial_params).where(
        study_key(trial_params.c.trial_id) == study_id,
        trial_params.c.name == name,
    )


def _params(connection: sa.Connection, study_id: int) -> dict[str, bool]:
    """Parameters, and whether each is a number, which Optuna does not let change within a study.

    Trials are many and names are few, so it leaps from one name to the next in an index.
    """
    own = study_key(trial_params.c.trial_id) == study_id
    first = sa.select(trial_params.c.name, trial_params.c.distribution).where(own).order_by(trial_params.c.name)
    found = sa.select(first.limit(1).subquery()).cte("found", recursive=True)
    following = first.where(trial_params.c.name > found.c.name).limit(1).correlate(found).lateral("following")
    found = found.union_all(
        sa.select(following).select_from(found).join(following, sa.true()),
    )
    rows = connection.execute(sa.select(found.c.name, found.c.distribution)).all()
    return {row.name: not isinstance(distribution_of(row.distribution), CategoricalDistribution) for row in rows}
