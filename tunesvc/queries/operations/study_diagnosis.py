"""Why a study is where it is: who may write for it, which attempts live where, what waits and for what.

All ages are by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.worker.garbage import KEEPS_MEMORY
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import in_study, state_shown
from tunesvc.queries.studies import get_study as study_view

_NEWEST = 100
"""Attempts whose logs are looked through."""
LIVE = (AttemptState.OPENED, AttemptState.RUNNING)


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The right to write for the study, as it was taken last."""

    owner: str
    """`host:pid`."""
    token: int
    """How often it has changed hands."""
    left_s: float
    """Until it runs out; negative: since then."""


@dataclass(frozen=True, slots=True)
class LiveAttemptRow:
    """An attempt that is not over."""

    trial_number: int
    number: int
    state: AttemptState
    """`opened`: it waits for its resources."""
    node: str | None
    pid: int | None
    devices: tuple[str, ...]
    age_s: float
    """Since it was opened or, once it runs, started."""
    reported_s: float | None
    """Since its last report."""
    left_s: float | None
    """Until its worker is given up, unless it gives a sign of life."""
    stop_cause: str | None


@dataclass(frozen=True, slots=True)
class CommandRow:
    """Something that was asked and is not carried out yet."""

    kind: str
    asked_by: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What there is to know about a study that does not do what somebody expects."""

    study: StudyView
    lease: LeaseRow | None
    """None when nobody ever ran it."""
    live: tuple[LiveAttemptRow, ...]
    to_run_again: tuple[int, ...]
    """Trials that are not over and have no live attempt."""
    enqueued: tuple[int, ...]
    """Trials that somebody enqueued and nobody has run yet."""
    commands: tuple[CommandRow, ...]
    failures: Mapping[str, int]
    """Attempts that failed, by class."""
    keeps_memory: Mapping[int, str]
    """What workers noted in the logs of the newest trials about memory that they keep, by trial."""
    events: tuple[tuple[datetime, str], ...]
    """The newest decisions about the study's machinery: retries, failing samplers, changed code."""


def diagnose(database: Database, name: str, events: int = 5) -> Diagnosis:
    """All that explains the study's state.

    Raises:
        StudyNotFound: there is none; the text suggests the nearest name.
        DatabaseUnavailable: the database does not answer.
    """
    with translate_unavailable():
        view = study_view(database, name)
        with database.engine.connect() as connection:
            return Diagnosis(
                view,
                _lease(connection, view.study_id),
                _live(connection, view.study_id),
                _numbers(connection, view.study_id, "running", "interrupted"),
                _numbers(connection, view.study_id, "waiting"),
                _commands(connection, view.study_id),
                _failures(connection, view.study_id),
                _keeps_memory(connection, view.study_id),
                _events(connection, view.study_id, events),
            )


def _keeps_memory(connection: sa.Connection, study_id: int) -> dict[int, str]:
    attempts, logs = tables.attempts, tables.logs
    newest = (
        sa.select(attempts.c.trial_id)
        .where(in_study(attempts.c.trial_id, study_id))
        .order_by(attempts.c.trial_id.desc())
        .limit(_NEWEST)
    )
    query = sa.select(logs.c.trial_id, logs.c.text).where(
        logs.c.trial_id.in_(newest),
        logs.c.text.startswith(KEEPS_MEMORY, autoescape=True),
    )
    return {number_of(row.trial_id): row.text for row in connection.execute(query.order_by(logs.c.trial_id))}


def _lease(connection: sa.Connection, study_id: int) -> LeaseRow | None:
    table = tables.leases
    row = connection.execute(
        sa.select(
            table.c.owner,
            table.c.token,
            _seconds(table.c.expires_at - sa.func.now()),
        ).where(table.c.study_id == study_id)
    ).one_or_none()
    return None if row is None else LeaseRow(*row)


def _live(connection: sa.Connection, study_id: int) -> tuple[LiveAttemptRow, ...]:
    table, reports = tables.attempts, tables.reports
    reported = (
        sa.select(sa.func.max(reports.c.reported_at))
        .where(reports.c.trial_id == table.c.trial_id, reports.c.attempt == table.c.number)
        .scalar_subquery()
    )
    query = (
        sa.select(
            table.c.trial_id,
            table.c.number,
            table.c.state,
            table.c.node,
            table.c.pid,
            table.c.devices,
            _seconds(
                sa.func.now() - sa.func.coalesce(table.c.started_at, table.c.opened_at),
            ),
            _seconds(sa.func.now() - reported),
            _seconds(table.c.expires_at - sa.func.now()),
            table.c.stop_cause,
        )
        .where(in_study(table.c.trial_id, study_id), table.c.state.in_(LIVE))
        .order_by(table.c.trial_id)
    )
    return tuple(
        LiveAttemptRow(
            number_of(row[0]),
            row[1],
            AttemptState(row[2]),
            row[3],
            row[4],
            tuple(row[5] or ()),
            *row[6:],
        )
        for row in connection.execute(query)
    )


def _numbers(connection: sa.Connection, study_id: int, *states: str) -> tuple[int, ...]:
    """Trials of these states that no live attempt serves; paused ones want none."""
    trials, attempts = tables.trials, tables.attempts
    served = sa.exists().where(
        attempts.c.trial_id == trials.c.trial_id,
        attempts.c.state.in_(LIVE),
    )
    query = sa.select(trials.c.number).where(
        trials.c.study_id == study_id,
        state_shown().in_(states),
        ~served,
    )
    return tuple(connection.execute(query.order_by(trials.c.number)).scalars())


def _commands(connection: sa.Connection, study_id: int) -> tuple[CommandRow, ...]:
    table = tables.commands
    query = (
        sa.select(
            table.c.kind,
            table.c.asked_by,
            _seconds(sa.func.now() - table.c.asked_at),
        )
        .where(table.c.study_id == study_id, table.c.done_at.is_(None))
        .order_by(table.c.command_id)
    )
    return tuple(CommandRow(*row) for row in connection.execute(query))


def _failures(connection: sa.Connection, study_id: int) -> dict[str, int]:
    table = tables.attempts
    query = (
        sa.select(table.c.failure, sa.func.count())
        .where(in_study(table.c.trial_id, study_id), table.c.failure.is_not(None))
        .group_by(table.c.failure)
        .order_by(sa.func.count().desc(), table.c.failure)
    )
    return {row.failure: row[1] for row in connection.execute(query)}


def _events(
    connection: sa.Connection,
    study_id: int,
    limit: int,
) -> tuple[tuple[datetime, str], ...]:
    table = tables.decisions
    query = (
        sa.select(table.c.decided_at, table.c.trial_number, table.c.reason)
        .where(
            table.c.study_id == study_id,
            table.c.kind.in_(["retry", "fail", "sampler", "code"]),
        )
        .order_by(table.c.decision_id.desc())
        .limit(limit)
    )
    rows = connection.execute(query).all()
    return tuple((at, reason if number is None else f"trial {number}: {reason}") for at, number, reason in rows[::-1])


def _seconds(interval: Any) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double)
