"""What the checks look at: a bounded number of rows, however large the study is.

Of a study of 100,000 trials that is about 3,500 trials with their parameters, and the few trials that set a record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import attempts, trial_attrs, trial_params, trials
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import in_study, is_candidate
from tunesvc.search.pruners.audit import AUDIT
from tunesvc.spec import ParamValue

SAMPLED = 1_500
"""Trials that stand for all: an even choice by number."""
BEST = 50
FAILED = 1_000
RECENT = 500
"""The newest proposals."""
ATTEMPTS = 2_000
"""The newest attempts."""
_OVER = ("complete", "pruned", "fail")


@dataclass(frozen=True, slots=True)
class SeenTrial:
    """A trial, as far as checks look at it."""

    number: int
    state: str
    value: float | None
    """The first objective's; None when there is none."""
    failure: str | None
    """Class of its last attempt's failure."""
    params: Mapping[str, ParamValue]
    distributions: Mapping[str, BaseDistribution]
    """From which its parameters were drawn."""


@dataclass(frozen=True, slots=True)
class OccupiedTime:
    """When an attempt held, or waited for, a place on the cluster."""

    opened_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """A trial that was the best of all before it."""

    place: int
    """How many trials were over then, itself included."""
    value: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows for all checks."""

    study: StudyView
    sampled: Sequence[SeenTrial] = ()
    """Of the trials that are over, by number."""
    best: Sequence[SeenTrial] = ()
    """The best complete, feasible ones of one objective, the best first."""
    failed: Sequence[SeenTrial] = ()
    recent: Sequence[SeenTrial] = ()
    """The newest trials of whatever state, by number."""
    records: Sequence[BestSoFar] = ()
    """Of one objective, in their order."""
    audited: Sequence[FrozenTrial] = ()
    """Trials that the pruner wanted stopped and that were let finish."""
    attempts: Sequence[OccupiedTime] = ()
    now: datetime | None = None
    """By the database's clock."""

    @property
    def is_single(self) -> bool:
        """Whether there is one objective."""
        return len(self.study.objectives) == 1

    @property
    def sign(self) -> float:
        """-1 where more is better: times this, less is better."""
        return -1.0 if self.study.objectives[0].maximize else 1.0

    def complete(self) -> list[SeenTrial]:
        """The sampled trials that have a number as their value."""
        return [one for one in self.sampled if one.state == "complete" and _is_number(one.value)]


def gather(database: Database, study: StudyView) -> Evidence:
    """Read what the checks need."""
    with database.engine.connect() as connection:
        single = len(study.objectives) == 1
        chosen = _Chosen(connection, study)
        sampled, best = chosen.sampled(), chosen.best() if single else ()
        failed, recent = chosen.failed(), chosen.recent()
        seen = _seen(connection, {row.trial_id: row for rows in (sampled, best, failed, recent) for row in rows})

        def of(rows: Sequence[Any]) -> tuple[SeenTrial, ...]:
            return tuple(seen[row.trial_id] for row in rows)

        return Evidence(
            study,
            of(sampled),
            of(best),
            of(failed),
            of(recent),
            records=_records(connection, study) if single else (),
            audited=_audited(connection, study),
            attempts=_attempts(connection, study),
            now=connection.execute(sa.select(sa.func.now())).scalar_one(),
        )


class _Chosen:
    """Which trials are looked at."""

    def __init__(self, connection: sa.Connection, study: StudyView) -> None:
        self._connection = connection
        self._study = study

    def sampled(self) -> Sequence[Any]:
        stride = max(1, -(-self._study.counts.total // SAMPLED))
        query = self._rows().where(trials.c.state.in_(_OVER), trials.c.number % stride == 0).order_by(trials.c.number)
        return self._connection.execute(query).all()

    def best(self) -> Sequence[Any]:
        value = trials.c["values"][1]
        by = value.desc() if self._study.objectives[0].maximize else value.asc()
        return self._connection.execute(
            self._rows().where(*is_candidate()).order_by(by, trials.c.number).limit(BEST)
        ).all()

    def failed(self) -> Sequence[Any]:
        query = self._rows().where(trials.c.state == "fail").order_by(trials.c.number.desc()).limit(FAILED)
        return self._connection.execute(query).all()

    def recent(self) -> Sequence[Any]:
        query = self._rows().where(trials.c.state != "waiting").order_by(trials.c.number.desc()).limit(RECENT)
        return self._connection.execute(query).all()[::-1]

    def _rows(self) -> sa.Select[Any]:
        failure = (
            sa.select(attempts.c.failure)
            .where(attempts.c.trial_id == trials.c.trial_id)
            .order_by(attempts.c.number.desc())
            .limit(1)
            .correlate(trials)
            .scalar_subquery()
        )
        return sa.select(
            trials.c.trial_id,
            trials.c.number,
            trials.c.state,
            trials.c["values"][1].label("value"),
            sa.case((trials.c.state == "fail", failure)).label("failure"),
        ).where(trials.c.study_id == self._study.study_id)


def _seen(connection: sa.Connection, rows: Mapping[int, Any]) -> dict[int, SeenTrial]:
    """The rows with their parameters, by trial id."""
    params: dict[int, dict[str, ParamValue]] = {}
    kinds: dict[int, dict[str, BaseDistribution]] = {}
    query = (
        sa.select(trial_params.c.trial_id, trial_params.c.name, trial_params.c.value, trial_params.c.distribution)
        .where(trial_params.c.trial_id == sa.any_(sa.cast(list(rows), pg.ARRAY(sa.BigInteger))))
        .order_by(trial_params.c.trial_id, trial_params.c.position)
    )
    for trial_id, name, value, written in connection.execute(query):
        kind = _distribution(written)
        params.setdefault(trial_id, {})[name] = kind.to_external_repr(value)
        kinds.setdefault(trial_id, {})[name] = kind
    return {
        key: SeenTrial(row.number, row.state, row.value, row.failure, params.get(key, {}), kinds.get(key, {}))
        for key, row in rows.items()
    }


def _records(connection: sa.Connection, study: StudyView) -> tuple[BestSoFar, ...]:
    """The places at which the best value changed, in the order in which trials ended."""
    candidate = sa.case((sa.and_(*is_candidate()), trials.c["values"][1]))
    order = (trials.c.ended_at, trials.c.number)
    ended = (
        sa.select(sa.func.row_number().over(order_by=order).label("place"), candidate.label("value"))
        .where(trials.c.study_id == study.study_id, trials.c.state.in_(_OVER))
        .subquery("ended")
    )
    choose = sa.func.max if study.objectives[0].maximize else sa.func.min
    so_far = choose(ended.c.value).over(order_by=ended.c.place, rows=(None, 0))
    ranked = sa.select(ended.c.place, so_far.label("best")).subquery("ranked")
    before = sa.func.lag(ranked.c.best).over(order_by=ranked.c.place)
    changes = sa.select(ranked, before.label("before")).subquery("changes")
    query = (
        sa.select(changes.c.place, changes.c.best)
        .where(changes.c.best.is_distinct_from(changes.c.before))
        .order_by(changes.c.place)
    )
    return tuple(BestSoFar(row.place, row.best) for row in connection.execute(query))


def _audited(connection: sa.Connection, study: StudyView) -> tuple[FrozenTrial, ...]:
    query = (
        sa.select(trials.c.number, trials.c["values"].label("results"), trial_attrs.c.value.label("verdict"))
        .join(trial_attrs, trial_attrs.c.trial_id == trials.c.trial_id)
        .where(in_study(trial_attrs.c.trial_id, study.study_id), trials.c.state == "complete")
        .where(trial_attrs.c.kind == "system", trial_attrs.c.name == AUDIT, trials.c["values"].is_not(None))
        .order_by(trials.c.number)
    )
    return tuple(
        optuna.trial.create_trial(
            state=TrialState.COMPLETE, values=row.results, system_attrs={AUDIT: json.loads(row.verdict)}
        )
        for row in connection.execute(query)
        if all(_is_number(value) for value in row.results)
    )


def _attempts(connection: sa.Connection, study: StudyView) -> tuple[OccupiedTime, ...]:
    query = (
        sa.select(attempts.c.opened_at, attempts.c.started_at, attempts.c.ended_at)
        .where(in_study(attempts.c.trial_id, study.study_id))
        .order_by(attempts.c.trial_id.desc(), attempts.c.number.desc())
        .limit(ATTEMPTS)
    )
    return tuple(OccupiedTime(*row) for row in connection.execute(query))


def _is_number(value: float | None) -> bool:
    return value is not None and value == value and value not in (float("inf"), float("-inf"))


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
