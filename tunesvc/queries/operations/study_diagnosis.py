"""Diagnosis of a study: its lease, live attempts, waiting trials, requests and failures.

All ages are by the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of
from tunesvc.db.schema.states import AttemptState
from tunesvc.execution.worker.garbage import KEEPS_MEMORY
from tunesvc.queries.rows import StudyView, from_row
from tunesvc.queries.sql import LIVE, has_live_attempt, in_study, seconds, state_shown
from tunesvc.queries.studies import get_study as study_view

EVENTS = 5
"""Newest decisions about execution."""
_NEWEST = 100
"""Newest attempts whose logs are searched."""


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The newest lease on the study."""

    owner: str
    """`host:pid`."""
    token: int
    """Fencing token: number of owners so far."""
    left_s: float
    """Time until it expires; negative if it has expired."""


@dataclass(frozen=True, slots=True)
class LivenessRow:
    """An unfinished attempt."""

    trial_number: int
    number: int
    state: AttemptState
    """`opened` while it waits for its resources."""
    node: str | None
    pid: int | None
    devices: tuple[str, ...]
    age_s: float
    """Time since it was opened or, once it runs, started."""
    reported_s: float | None
    """Time since its last report."""
    left_s: float | None
    """Time until its worker counts as lost without a further heartbeat."""
    stop_cause: str | None


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A pending request."""

    kind: str
    asked_by: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """State of a study and its trials, to find out why it does not progress."""

    study: StudyView
    lease: LeaseRow | None
    """None if no coordinator ever ran it."""
    live: tuple[LivenessRow, ...]
    to_run_again: tuple[int, ...]
    """Unfinished trials without a live attempt."""
    enqueued: tuple[int, ...]
    """Enqueued trials that have not run yet."""
    commands: tuple[CommandRow, ...]
    failures: Mapping[str, int]
    """Number of failed attempts by class."""
    keeps_memory: Mapping[int, str]
    """Notes of workers in the newest trials' logs about memory that they keep, by trial."""
    events: tuple[tuple[datetime, str], ...]
    """Newest decisions about execution: retries, failing samplers, changed code."""


def diagnose(database: Database, name: str) -> Diagnosis:
    """Return the diagnosis of a study.

    Raises:
        StudyNotFound: there is no such study; the text suggests the nearest name.
        DatabaseUnavailable: the database does not answer.
    """
    with translate_unavailable():
        view = study_view(database, name)
        with database.engine.connect() as connection:
            return Diagnosis(
                view,
                _lease(connection, view.study_id),
                _live_attempts(connection, view.study_id),
                _without_attempt(connection, view.study_id, "running", "interrupted"),
                _without_attempt(connection, view.study_id, "waiting"),
                _commands(connection, view.study_id),
                _failures(connection, view.study_id),
                _keeps_memory(connection, view.study_id),
                _events(connection, view.study_id),
            )


def _keeps_memory(connection: sa.Connection, study_id: int) -> dict[int, str]:
    attempts = tables.attempts
    logs = tables.logs
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
    rows = connection.execute(query.order_by(logs.c.trial_id))
    return {number_of(row.trial_id): row.text for row in rows}


def _lease(connection: sa.Connection, study_id: int) -> LeaseRow | None:
    columns = tables.leases.c
    left_s = seconds(columns.expires_at - sa.func.now())
    query = sa.select(columns.owner, columns.token, left_s).where(columns.study_id == study_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else LeaseRow(*row)


def _live_attempts(connection: sa.Connection, study_id: int) -> tuple[LivenessRow, ...]:
    table = tables.attempts
    reports = tables.reports
    began_at = sa.func.coalesce(table.c.started_at, table.c.opened_at)
    reported_at = (
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
            seconds(sa.func.now() - began_at).label("age_s"),
            seconds(sa.func.now() - reported_at).label("reported_s"),
            seconds(table.c.expires_at - sa.func.now()).label("left_s"),
            table.c.stop_cause,
        )
        .where(in_study(table.c.trial_id, study_id), table.c.state.in_(LIVE))
        .order_by(table.c.trial_id)
    )
    attempts = []
    for row in connection.execute(query):
        attempt = from_row(
            LivenessRow,
            row,
            trial_number=number_of(row.trial_id),
            state=AttemptState(row.state),
            devices=tuple(row.devices or ()),
        )
        attempts.append(attempt)
    return tuple(attempts)


def _without_attempt(
    connection: sa.Connection,
    study_id: int,
    *states: str,
) -> tuple[int, ...]:
    """Return the numbers of trials in these states that have no live attempt."""
    trials = tables.trials
    query = sa.select(trials.c.number).where(
        trials.c.study_id == study_id,
        state_shown().in_(states),
        ~has_live_attempt(),
    )
    return tuple(connection.execute(query.order_by(trials.c.number)).scalars())


def _commands(connection: sa.Connection, study_id: int) -> tuple[CommandRow, ...]:
    columns = tables.commands.c
    query = (
        sa.select(
            columns.kind,
            columns.asked_by,
            seconds(sa.func.now() - columns.asked_at),
        )
        .where(columns.study_id == study_id, columns.done_at.is_(None))
        .order_by(columns.command_id)
    )
    return tuple(CommandRow(*row) for row in connection.execute(query))


def _failures(connection: sa.Connection, study_id: int) -> dict[str, int]:
    columns = tables.attempts.c
    query = (
        sa.select(columns.failure, sa.func.count())
        .where(in_study(columns.trial_id, study_id), columns.failure.is_not(None))
        .group_by(columns.failure)
        .order_by(sa.func.count().desc(), columns.failure)
    )
    return {row.failure: row[1] for row in connection.execute(query)}


def _events(connection: sa.Connection, study_id: int) -> tuple[tuple[datetime, str], ...]:
    columns = tables.decisions.c
    query = (
        sa.select(columns.decided_at, columns.trial_number, columns.reason)
        .where(
            columns.study_id == study_id,
            columns.kind.in_(["retry", "fail", "sampler", "code"]),
        )
        .order_by(columns.decision_id.desc())
        .limit(EVENTS)
    )
    events = []
    for decided_at, number, reason in reversed(connection.execute(query).all()):
        text = reason if number is None else f"trial {number}: {reason}"
        events.append((decided_at, text))
    return tuple(events)
