"""Rows that health checks examine: a bounded number, however large the study.

Of a study of 100,000 trials these are about 3,500 trials with their parameters, and the few trials
that set a record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection

from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.frozen_trials import distribution_of
from tunesvc.db.schema.tables import attempts, trial_attrs, trial_params, trials
from tunesvc.queries.cost.spending import FailureSpending, list_by_failure
from tunesvc.queries.rows import StudyView, from_row
from tunesvc.queries.sql import in_study, is_any_of, is_candidate, of_last_attempt
from tunesvc.search.pruners.audit import AUDIT
from tunesvc.space.directions import direction_of
from tunesvc.spec import ParamValue

SAMPLED = 1_500
"""Most finished trials in the even sample by number."""
BEST = 50
"""Best trials that are read."""
FAILED = 1_000
"""Newest failed trials that are read."""
RECENT = 500
"""Newest proposals that are read."""
ATTEMPTS = 2_000
"""Newest attempts that are read."""
_FINISHED = ("complete", "pruned", "fail")


@dataclass(frozen=True, slots=True)
class SeenTrial:
    """The columns of a trial that checks examine."""

    number: int
    state: str
    value: float | None
    """Value of the first objective; None without a value."""
    failure: str | None
    """Class of its last attempt's failure."""
    params: Mapping[str, ParamValue]
    distributions: Mapping[str, BaseDistribution]
    """Distributions of its parameters."""


@dataclass(frozen=True, slots=True)
class OccupiedTime:
    """Time during which an attempt waited for a worker and used it."""

    opened_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """A trial that was better than all before it."""

    place: int
    """Number of finished trials then, including this one."""
    value: float


AuditedEnd = tuple[Sequence[float], Mapping[str, Any]]
"""Values of an audited trial, and its attribute `AUDIT`."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Rows for all checks."""

    study: StudyView
    sampled: Sequence[SeenTrial] = ()
    """Sample of the finished trials, by number."""
    best: Sequence[SeenTrial] = ()
    """Complete, feasible trials, the best first; empty with several objectives."""
    failed: Sequence[SeenTrial] = ()
    recent: Sequence[SeenTrial] = ()
    """Newest trials of any state, by number."""
    records: Sequence[BestSoFar] = ()
    """Improvements in order; empty with several objectives."""
    audited: Sequence[AuditedEnd] = ()
    """Complete trials that the pruner would have stopped."""
    attempts: Sequence[OccupiedTime] = ()
    now: datetime | None = None
    """Time of the database's clock."""
    spent: Sequence[FailureSpending] = ()
    """Resources that all attempts took, by the class of their failure."""

    @property
    def is_single(self) -> bool:
        """True if there is one objective."""
        return len(self.study.objectives) == 1

    def loss(self, value: float) -> float:
        """Return a value of the first objective oriented so that small is good."""
        return value * self.study.objectives[0].orientation

    def complete(self) -> list[SeenTrial]:
        """Return the sampled trials with a finite value."""
        return [one for one in self.sampled if one.state == "complete" and _is_number(one.value)]


def gather(database: Database, study: StudyView) -> Evidence:
    """Read the rows for all checks."""
    with database.engine.connect() as connection:
        single = len(study.objectives) == 1
        selection = _TrialSelection(connection, study)
        sampled = selection.sampled()
        failed = selection.failed()
        recent = selection.recent()
        best = selection.best() if single else ()
        by_id = {row.trial_id: row for row in (*sampled, *best, *failed, *recent)}
        trials_by_id = _with_parameters(connection, by_id)

        def trials_of(rows: Sequence[Any]) -> tuple[SeenTrial, ...]:
            return tuple(trials_by_id[row.trial_id] for row in rows)

        return Evidence(
            study,
            trials_of(sampled),
            trials_of(best),
            trials_of(failed),
            trials_of(recent),
            records=_records(connection, study) if single else (),
            audited=list_audited(connection, study.study_id),
            attempts=_attempts(connection, study),
            now=connection.execute(sa.select(sa.func.now())).scalar_one(),
            spent=list_by_failure(connection, study),
        )


class _TrialSelection:
    """Queries for the trials that checks examine."""

    def __init__(self, connection: sa.Connection, study: StudyView) -> None:
        self._connection = connection
        self._study = study

    def sampled(self) -> Sequence[Any]:
        stride = max(1, -(-self._study.counts.total // SAMPLED))
        query = self._rows().where(trials.c.state.in_(_FINISHED), trials.c.number % stride == 0)
        return self._connection.execute(query.order_by(trials.c.number)).all()

    def best(self) -> Sequence[Any]:
        value = trials.c["values"][1]
        best_first = value.desc() if self._study.objectives[0].maximize else value.asc()
        query = self._rows().where(*is_candidate()).order_by(best_first, trials.c.number)
        return self._connection.execute(query.limit(BEST)).all()

    def failed(self) -> Sequence[Any]:
        query = self._rows().where(trials.c.state == "fail").order_by(trials.c.number.desc())
        return self._connection.execute(query.limit(FAILED)).all()

    def recent(self) -> Sequence[Any]:
        query = self._rows().where(trials.c.state != "waiting").order_by(trials.c.number.desc())
        return self._connection.execute(query.limit(RECENT)).all()[::-1]

    def _rows(self) -> sa.Select[Any]:
        failure = of_last_attempt(attempts.c.failure)
        return sa.select(
            trials.c.trial_id,
            trials.c.number,
            trials.c.state,
            trials.c["values"][1].label("value"),
            sa.case((trials.c.state == "fail", failure)).label("failure"),
        ).where(trials.c.study_id == self._study.study_id)


def _with_parameters(
    connection: sa.Connection,
    rows: Mapping[int, Any],
) -> dict[int, SeenTrial]:
    """Return trials with their parameters, by trial id."""
    params: dict[int, dict[str, ParamValue]] = {}
    distributions: dict[int, dict[str, BaseDistribution]] = {}
    query = (
        sa.select(
            trial_params.c.trial_id,
            trial_params.c.name,
            trial_params.c.value,
            trial_params.c.distribution,
        )
        .where(is_any_of(trial_params.c.trial_id, rows))
        .order_by(trial_params.c.trial_id, trial_params.c.position)
    )
    for trial_id, name, value, stored in connection.execute(query):
        distribution = distribution_of(stored)
        params.setdefault(trial_id, {})[name] = distribution.to_external_repr(value)
        distributions.setdefault(trial_id, {})[name] = distribution
    seen = {}
    for key, row in rows.items():
        own = params.get(key, {})
        of_own = distributions.get(key, {})
        seen[key] = from_row(SeenTrial, row, params=own, distributions=of_own)
    return seen


def _records(connection: sa.Connection, study: StudyView) -> tuple[BestSoFar, ...]:
    """Return the improvements of the best value, in the order in which trials ended."""
    order = (trials.c.ended_at, trials.c.number)
    place = sa.func.row_number().over(order_by=order)
    candidate = sa.case((sa.and_(*is_candidate()), trials.c["values"][1]))
    better = sa.func.max if study.objectives[0].maximize else sa.func.min
    so_far = better(candidate).over(order_by=order, rows=(None, 0))
    ranked = (
        sa.select(place.label("place"), so_far.label("best"))
        .where(trials.c.study_id == study.study_id)
        .where(trials.c.state.in_(_FINISHED))
        .subquery("ranked")
    )
    before = sa.func.lag(ranked.c.best).over(order_by=ranked.c.place)
    changes = sa.select(ranked, before.label("before")).subquery("changes")
    query = (
        sa.select(changes.c.place, changes.c.best)
        .where(changes.c.best.is_distinct_from(changes.c.before))
        .order_by(changes.c.place)
    )
    return tuple(BestSoFar(*row) for row in connection.execute(query))


def list_audited(connection: sa.Connection, study_id: int) -> list[AuditedEnd]:
    """Return the complete trials that the pruner would have stopped."""
    query = (
        sa.select(trials.c["values"], trial_attrs.c.value)
        .join(trial_attrs, trial_attrs.c.trial_id == trials.c.trial_id)
        .where(in_study(trial_attrs.c.trial_id, study_id), trials.c.state == "complete")
        .where(trial_attrs.c.kind == "system", trial_attrs.c.name == AUDIT)
        .order_by(trials.c.number)
    )
    return [(values, json.loads(verdict)) for values, verdict in connection.execute(query)]


def directions_of(study: StudyView) -> list[StudyDirection]:
    """Return the objectives' goals as Optuna's directions."""
    return [direction_of(objective.goal) for objective in study.objectives]


def _attempts(connection: sa.Connection, study: StudyView) -> tuple[OccupiedTime, ...]:
    query = (
        sa.select(attempts.c.opened_at, attempts.c.started_at, attempts.c.ended_at)
        .where(in_study(attempts.c.trial_id, study.study_id))
        .order_by(attempts.c.trial_id.desc(), attempts.c.number.desc())
        .limit(ATTEMPTS)
    )
    return tuple(OccupiedTime(*row) for row in connection.execute(query))


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
