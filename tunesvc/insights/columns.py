"""What a study's trials can be filtered, sorted and shown by: its objectives, parameters and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution

from tunesvc.insights.filters import Names
from tunesvc.insights.rows import StudyView
from tunesvc.insights.sql import of_study, study_key
from tunesvc.store.database import Database
from tunesvc.store.frozen import distribution_of
from tunesvc.store.schema import reports, trial_params

_LOOKED_AT = 200
"""Reports, the newest trials', by which the metrics of a study are known."""


def names_of(database: Database, study: StudyView) -> Names:
    """The names that a study has beyond those of all studies; parameters in the order of its spec."""
    with database.engine.connect() as connection:
        drawn = _params(connection, study.study_id)
        metrics = _metrics(connection, study.study_id)
    declared = [] if study.spec is None else list(study.spec.parameters)
    order = [*(name for name in declared if name in drawn), *sorted(drawn.keys() - set(declared))]
    objectives = tuple(objective.name for objective in study.objectives)
    return Names(objectives, {name: drawn[name] for name in order}, metrics)


def distributions(connection: sa.Connection, study_id: int, params: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """All distributions that parameters were drawn from, as Optuna's JSON: several, where a space was widened."""
    found: dict[str, tuple[str, ...]] = {}
    for name in params:
        query = _of(study_id, name).with_only_columns(trial_params.c.distribution).distinct()
        found[name] = tuple(connection.execute(query).scalars())
    return found


def _of(study_id: int, name: str) -> sa.Select[Any]:
    return sa.select(trial_params).where(study_key(trial_params.c.trial_id) == study_id, trial_params.c.name == name)


def _params(connection: sa.Connection, study_id: int) -> dict[str, bool]:
    """Parameters, and whether each is a number, which Optuna does not let change within a study.

    Trials are many and names are few, so it leaps from one name to the next in an index.
    """
    own = study_key(trial_params.c.trial_id) == study_id
    first = sa.select(trial_params.c.name, trial_params.c.distribution).where(own).order_by(trial_params.c.name)
    found = sa.select(first.limit(1).subquery()).cte("found", recursive=True)
    following = first.where(trial_params.c.name > found.c.name).limit(1).correlate(found).lateral("following")
    found = found.union_all(sa.select(following).select_from(found).join(following, sa.true()))
    rows = connection.execute(sa.select(found.c.name, found.c.distribution)).all()
    return {row.name: not isinstance(distribution_of(row.distribution), CategoricalDistribution) for row in rows}


def _metrics(connection: sa.Connection, study_id: int) -> tuple[str, ...]:
    newest: Any = (
        sa.select(reports.c.metrics)
        .where(of_study(reports.c.trial_id, study_id))
        .order_by(reports.c.trial_id.desc())
        .limit(_LOOKED_AT)
        .subquery()
    )
    name = sa.func.jsonb_object_keys(newest.c.metrics).label("name")
    # the writer's None is JSON's null
    names = sa.select(name).where(sa.func.jsonb_typeof(newest.c.metrics) == "object").distinct().order_by(name)
    return tuple(connection.execute(names).scalars())
