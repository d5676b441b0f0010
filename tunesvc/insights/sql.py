"""Pieces of SQL that several queries share.

A study's trial ids are one range (see `tunesvc.store.ids`), so whatever belongs to a study's trials is an index
range of that table.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.store.schema import attempts, trial_attrs, trials

_SHIFT: sa.ColumnElement[int] = sa.literal_column("32")


def first_trial_id(study_id: sa.ColumnElement[int] | int) -> sa.ColumnElement[int]:
    """The id that a study's trial 0 has."""
    return sa.cast(study_id, sa.BigInteger).bitwise_lshift(_SHIFT)


def of_study(column: sa.ColumnElement[int], study_id: int) -> sa.ColumnElement[bool]:
    """Whether a trial id belongs to the study."""
    return sa.and_(column >= study_id << 32, column < (study_id + 1) << 32)


def state_shown() -> sa.ColumnElement[str]:
    """A trial's state; `paused` where it is running by the book and its last attempt is paused."""
    last = (
        sa.select(attempts.c.state)
        .where(attempts.c.trial_id == trials.c.trial_id)
        .order_by(attempts.c.number.desc())
        .limit(1)
        .correlate(trials)
        .scalar_subquery()
    )
    is_paused = sa.and_(trials.c.state == "running", last == "paused")
    return sa.case((is_paused, "paused"), else_=trials.c.state)


def is_feasible() -> sa.ColumnElement[bool]:
    """Whether a trial keeps its constraints: Optuna's attributes `constraints:NAME`, of which none is above 0, or
    `constraints`, the list that older versions wrote.

    Numbers are read as text, because Python's JSON may hold NaN, which Postgres's JSON refuses; Postgres reads its
    numbers as they are, and sorts NaN above all of them.
    """
    listed = sa.func.string_to_array(sa.func.translate(trial_attrs.c.value, "[] ", ""), ",")
    violated = sa.case(
        (trial_attrs.c.value.startswith("["), sa.literal(0.0) < sa.any_(sa.cast(listed, pg.ARRAY(sa.Double)))),
        (
            trial_attrs.c.value.regexp_match("^-?([0-9.]+(e[-+]?[0-9]+)?|Infinity)$|^NaN$"),
            sa.literal(0.0) < sa.cast(trial_attrs.c.value, sa.Double),
        ),
        # Optuna stores `null` when the user's own constraint function raised
        else_=sa.false(),
    )
    name = trial_attrs.c.name
    # a look-up by key; as NOT EXISTS, Postgres would rather hash the attributes of all studies
    found = (
        sa.select(sa.func.bool_or(violated))
        .where(trial_attrs.c.trial_id == trials.c.trial_id)
        .where(trial_attrs.c.kind == "system")
        # one range of the primary key: ';' follows ':'
        .where(sa.or_(name == "constraints", sa.and_(name >= "constraints:", name < "constraints;")))
        .correlate(trials)
        .scalar_subquery()
    )
    return ~sa.func.coalesce(found, sa.false())


def is_candidate() -> tuple[sa.ColumnElement[bool], ...]:
    """What a trial needs so that it may be best: complete, a number, and feasible."""
    nan: Any = sa.literal(float("nan"), sa.Double)
    return (
        trials.c.state == "complete",
        trials.c["values"].is_not(None),
        nan != sa.all_(trials.c["values"]),
        is_feasible(),
    )
