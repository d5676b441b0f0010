"""Names by which a study's trials are filtered, sorted and shown.

These are objectives, parameters, metrics, constraints and attributes.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    """Return a study's own names, with parameters in the order of its spec."""
    with database.engine.connect() as connection:
        stored = _params(connection, study.study_id)
        attrs = attr_names(connection, study.study_id)
    declared = [] if study.spec is None else list(study.spec.parameters)
    order = [name for name in declared if name in stored]
    order += sorted(stored.keys() - set(declared))
    objectives = tuple(objective.name for objective in study.objectives)
    params = {name: stored[name] for name in order}
    return Names(objectives, params, attrs.metrics, attrs.constraints, attrs.attrs)


def distributions(
    connection: sa.Connection,
    study_id: int,
    params: Iterable[str],
) -> dict[str, tuple[str, ...]]:
    """Return all distributions of parameters as Optuna's JSON; several if the space was widened."""
    found: dict[str, tuple[str, ...]] = {}
    for name in params:
        query = (
            sa.select(trial_params.c.distribution)
            .where(study_key(trial_params.c.trial_id) == study_id)
            .where(trial_params.c.name == name)
            .distinct()
        )
        found[name] = tuple(connection.execute(query).scalars())
    return found


def _params(connection: sa.Connection, study_id: int) -> dict[str, bool]:
    """Return the parameters by name, True for numbers.

    Optuna does not let the kind of a parameter change within a study. Trials are many and names are
    few, so this skips from one name to the next in an index ("loose index scan").
    """
    name = trial_params.c.name
    distribution = trial_params.c.distribution
    own = study_key(trial_params.c.trial_id) == study_id
    first = sa.select(name, distribution).where(own).order_by(name)
    found = sa.select(first.limit(1).subquery()).cte("found", recursive=True)
    next_name = first.where(name > found.c.name).limit(1)
    following = next_name.correlate(found).lateral("following")
    step = sa.select(following).select_from(found).join(following, sa.true())
    found = found.union_all(step)
    params = {}
    for found_name, stored in connection.execute(sa.select(found.c.name, found.c.distribution)):
        kind = distribution_of(stored)
        params[found_name] = not isinstance(kind, CategoricalDistribution)
    return params
