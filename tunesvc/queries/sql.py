"""SQL expressions that several queries share.

A study's trial ids are one range (see `tunesvc.db.schema.ids`), so rows of a study's trials are an
index range of their table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import (
    attempts,
    decisions,
    leases,
    reports,
    studies,
    trial_attrs,
    trials,
)
from tunesvc.util.optuna_keys import CONSTRAINT, OLD_CONSTRAINTS

DECISION_COLUMNS = (
    decisions.c.decision_id,
    decisions.c.trial_number,
    decisions.c.kind,
    decisions.c.reason,
    decisions.c.details,
    decisions.c.decided_at,
)
"""Columns of a `DecisionRow`, in its order."""

JSON_NUMBER = r"^-?([0-9.]{1,255}(e[-+]?[0-9]{1,3})?|Infinity)$|^NaN$"
"""Numbers in Python's JSON that Postgres can cast. Longer integers are too large for it."""

LIVE = (AttemptState.OPENED, AttemptState.RUNNING)
"""States of attempts that have not ended."""

_SHIFT: sa.ColumnElement[int] = sa.literal_column("32")


def first_trial_id(study_id: sa.ColumnElement[int] | int) -> sa.ColumnElement[int]:
    """Return the id of a study's trial 0."""
    return sa.cast(study_id, sa.BigInteger).bitwise_lshift(_SHIFT)


def in_study(column: sa.ColumnElement[int], study_id: int) -> sa.ColumnElement[bool]:
    """Return the condition that a trial id belongs to the study."""
    return sa.and_(column >= study_id << 32, column < (study_id + 1) << 32)


def is_any_of(column: sa.ColumnElement[int], ids: Iterable[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a trial id is one of these."""
    return column == sa.any_(sa.cast(list(ids), pg.ARRAY(sa.BigInteger)))


def state_shown() -> sa.ColumnElement[str]:
    """Return a trial's state as shown, one of `states.STATES_SHOWN`."""
    last = of_last_attempt(attempts.c.state)
    has_failed = sa.func.coalesce(
        of_last_attempt(attempts.c.failure.is_not(None)),
        trials.c.started_at.is_not(None),
    )
    unfinished = sa.case(
        (last == "paused", "paused"),
        (_is_abandoned(), "interrupted"),
        (last == "opened", "queued"),
        else_="running",
    )
    return sa.case(
        (trials.c.state == "running", unfinished),
        (trials.c.state == "fail", sa.case((has_failed, "failed"), else_="stopped")),
        else_=trials.c.state,
    )


def of_last_attempt(column: Any) -> sa.ScalarSelect[Any]:
    """Return a column of a trial's last attempt; NULL without attempts."""
    return (
        sa.select(column)
        .where(attempts.c.trial_id == trials.c.trial_id)
        .order_by(attempts.c.number.desc())
        .limit(1)
        .correlate(trials)
        .scalar_subquery()
    )


def newest_report(*columns: Any, trial: Any = trials.c.trial_id) -> sa.Select[Any]:
    """Select columns of a trial's newest report."""
    of_trial = sa.select(*columns).where(reports.c.trial_id == trial, ~reports.c.superseded)
    return of_trial.order_by(reports.c.attempt.desc(), reports.c.step.desc()).limit(1)


def has_live_attempt() -> sa.ColumnElement[bool]:
    """Return the condition that a trial has an attempt that has not ended."""
    of_trial = attempts.c.trial_id == trials.c.trial_id
    return sa.exists().where(of_trial, attempts.c.state.in_(LIVE)).correlate(trials)


def _is_abandoned() -> sa.ColumnElement[bool]:
    """Return the condition that no coordinator runs the trial's study although one should.

    Studies of Optuna's own processes have no spec and need no coordinator.
    """
    study = studies.alias("its_study")
    should_be_held = sa.exists().where(
        study.c.study_id == trials.c.study_id,
        study.c.spec.is_not(None),
        ~is_attended(study),
    )
    return should_be_held.correlate(trials)


def is_attended(study: sa.FromClause = studies) -> sa.ColumnElement[bool]:
    """Return the condition that a coordinator runs a study."""
    lease = leases.alias("its_lease")
    is_held = sa.exists().where(
        lease.c.study_id == study.c.study_id,
        lease.c.expires_at > sa.func.now(),
    )
    return is_held.correlate(study)


def seconds(interval: Any) -> sa.ColumnElement[float]:
    """Return an interval in seconds."""
    return sa.cast(sa.extract("epoch", interval), sa.Double)


def running_s() -> sa.ColumnElement[float]:
    """Return the aggregate of the seconds that attempts ran; NULL without attempts."""
    until = sa.func.coalesce(attempts.c.ended_at, sa.func.now())
    # Attempts that never started have no `started_at`.
    return sa.func.sum(sa.func.coalesce(seconds(until - attempts.c.started_at), 0.0))


def held_s(is_attended: sa.ColumnElement[bool]) -> sa.ColumnElement[float]:
    """Return the seconds for which an attempt has held its resources; NULL before its start.

    Args:
        is_attended: condition that a coordinator runs its study. Where none does, a live attempt
            counts until its last report.
    """
    last_report = (
        sa.select(sa.func.max(reports.c.reported_at))
        .where(
            reports.c.trial_id == attempts.c.trial_id,
            reports.c.attempt == attempts.c.number,
        )
        .correlate(attempts)
        .scalar_subquery()
    )
    now = sa.case((is_attended, sa.func.now()), else_=last_report)
    until = sa.func.coalesce(attempts.c.ended_at, now, attempts.c.started_at)
    return seconds(until - attempts.c.started_at)


def held_hours(
    amount: sa.ColumnElement[float],
    is_attended: sa.ColumnElement[bool],
) -> sa.ColumnElement[float]:
    """Return the aggregate of an amount of resources × hours held; see `held_s`."""
    return sa.func.coalesce(sa.func.sum(amount * held_s(is_attended)), 0.0) / 3600


def duration_s(ran_s: sa.ColumnElement[float] | None = None) -> sa.ColumnElement[float]:
    """Return the seconds that a trial ran, without the time between its attempts.

    A running trial counts until now. A trial made through Optuna's API has no attempts: it counts
    from its start to its end.

    Args:
        ran_s: `running_s` of its attempts, if the query has it; else it is looked up.
    """
    if ran_s is None:
        of_trial = sa.select(running_s()).where(attempts.c.trial_id == trials.c.trial_id)
        ran_s = of_trial.correlate(trials).scalar_subquery()
    until = sa.func.coalesce(trials.c.ended_at, sa.func.now())
    return sa.func.coalesce(ran_s, seconds(until - trials.c.started_at))


def study_key(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return the study of a trial id: the first column of indexes over several studies' trials."""
    return column.bitwise_rshift(_SHIFT)


def first_value() -> sa.ColumnElement[float]:
    """Return a trial's first value; NULL if it is NaN.

    This is the expression of an index, see `tables.FIRST_VALUE`.
    """
    value: Any = trials.c["values"][1]
    return sa.func.nullif(
        value,
        sa.literal_column("'NaN'::double precision"),
        type_=sa.Double(),
    )


def is_feasible(study_ids: Collection[int] | None = None) -> sa.ColumnElement[bool]:
    """Return the condition that a trial satisfies its constraints.

    That is: none of Optuna's attributes `constraints:NAME` is above 0, nor any number of
    `constraints`, the list that older versions wrote.

    Args:
        study_ids: Studies whose violations are looked up at once, for queries over all of their
            trials. If None, each trial's are looked up separately, for queries over few trials.
    """
    if study_ids is not None:
        ranges = [in_study(trial_attrs.c.trial_id, study_id) for study_id in study_ids]
        violating = _constraints(trial_attrs.c.trial_id).where(
            sa.or_(sa.false(), *ranges),
            _violated(),
        )
        return trials.c.trial_id.not_in(violating)
    # For NOT EXISTS, Postgres would hash the attributes of all studies.
    violates = _constraints(sa.func.bool_or(_violated())).where(
        trial_attrs.c.trial_id == trials.c.trial_id,
    )
    return ~sa.func.coalesce(violates.correlate(trials).scalar_subquery(), sa.false())


def _constraints(column: Any) -> sa.Select[Any]:
    name = trial_attrs.c.name
    return (
        sa.select(column)
        .where(trial_attrs.c.kind == sa.literal_column("'system'"))
        # The condition of a partial index, which is mostly empty.
        .where(name.like(sa.literal_column("'constraints%'")))
        .where(sa.or_(name == OLD_CONSTRAINTS, name.like(CONSTRAINT + "%")))
    )


def json_number(text: sa.ColumnElement[str]) -> sa.ColumnElement[float]:
    """Return a number in Python's JSON; NULL for anything else.

    Parses text, because Python's JSON may contain NaN, which Postgres's JSON type rejects.
    """
    return sa.case((text.regexp_match(JSON_NUMBER), sa.cast(text, sa.Double)))


def _violated() -> sa.ColumnElement[bool]:
    """Return the condition that a constraint attribute is violated, as NaN is."""
    # Postgres sorts NaN above all numbers, so no extra case is needed for it.
    zero = sa.literal(0.0)
    value = trial_attrs.c.value
    items = sa.func.string_to_array(sa.func.translate(value, "[] ", ""), ",")
    listed = sa.cast(items, pg.ARRAY(sa.Double))
    # Optuna stores `null` if the user's constraint function raised.
    number = sa.func.coalesce(json_number(value), zero)
    return sa.case((value.startswith("["), zero < sa.any_(listed)), else_=zero < number)


def is_candidate(
    study_ids: Collection[int] | None = None,
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of a candidate for the best trial: complete, feasible, not NaN.

    Args:
        study_ids: As in `is_feasible`.
    """
    nan: Any = sa.literal(float("nan"), sa.Double)
    return (
        trials.c.state == "complete",
        trials.c["values"].is_not(None),
        nan != sa.all_(trials.c["values"]),
        is_feasible(study_ids),
    )
