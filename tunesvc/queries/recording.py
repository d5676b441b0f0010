"""A study's recorded course, for replay.

A step of the coordinator is one transaction, and every row bears that transaction's time: rows of one time belong to
one step, and within it the order is that of the step itself. So the order of asks, reports, verdicts and ends needs
no columns of its own. What was drawn ahead says after which step that was.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine import json_numbers
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of
from tunesvc.errors import TuneError
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import in_study
from tunesvc.queries.warm_start_source import teacher
from tunesvc.search.prefetched_proposals import DRAWN_AT
from tunesvc.search.replay import RecordedStep, Recording


def course(database: Database, view: StudyView) -> Recording:
    """The study's course, whole; it is read at once, so a study that runs meanwhile is told up to some point.

    Raises:
        TuneError: it was made through Optuna's API, which records no decisions.
    """
    if view.spec is None:
        raise TuneError(f"study {view.name!r} was made through Optuna's API, which records no decisions")
    moments: dict[datetime, RecordedStep] = defaultdict(RecordedStep)
    with database.engine.connect() as connection:
        _decisions(connection, view.study_id, moments)
        _reports(connection, view, moments)
        _attempts(connection, view.study_id, moments)
        table = tables.trials
        ended = sa.select(table.c.number, table.c.ended_at).where(
            table.c.study_id == view.study_id, table.c.ended_at.is_not(None)
        )
        for number, at in connection.execute(ended.order_by(table.c.number)):
            moments[at].ended.append(number)
    trials = PgStorage(database).get_all_trials(view.study_id, deepcopy=False)
    ordered = [moments[at] for at in sorted(moments)]
    spec = view.spec
    return Recording(spec, {trial.number: trial for trial in trials}, ordered, lambda: teacher(database, spec))


def _decisions(connection: sa.Connection, study_id: int, moments: dict[datetime, RecordedStep]) -> None:
    table = tables.decisions
    query = (
        sa.select(table.c.trial_number, table.c.kind, table.c.details, table.c.decided_at)
        .where(table.c.study_id == study_id, table.c.kind.in_(["ask", "prune", "pause", "promote"]))
        .order_by(table.c.decision_id)
    )
    for number, kind, details, at in connection.execute(query):
        if kind == "ask":
            moments[at].taken.append(number)
            drawn = details.get(DRAWN_AT)
            moments[datetime.fromisoformat(drawn) if drawn else at].asked.append((number, details))
        elif kind == "promote":
            moments[at].promoted[number] = details
        else:
            moments[at].pruned[number] = details


def _reports(connection: sa.Connection, view: StudyView, moments: dict[datetime, RecordedStep]) -> None:
    """Those that a later attempt superseded too: they were there when they came."""
    table = tables.reports
    names = [objective.name for objective in view.objectives[1:]]
    metrics = table.c.metrics if names else sa.null()
    query = (
        sa.select(table.c.trial_id, table.c.step, table.c.value, metrics, table.c.reported_at)
        .where(in_study(table.c.trial_id, view.study_id), table.c.value.is_not(None))
        .order_by(table.c.trial_id, table.c.attempt, table.c.step)
    )
    for trial_id, step, value, written, at in connection.execute(query):
        known = json_numbers.load_metrics(written)
        moments[at].reports.append((number_of(trial_id), step, (value, *map(known.get, names))))


def _attempts(connection: sa.Connection, study_id: int, moments: dict[datetime, RecordedStep]) -> None:
    """Where trials were paused, and where they went back to their last checkpoint."""
    table = tables.attempts
    query = (
        sa.select(
            table.c.trial_id,
            table.c.number,
            table.c.opened_at,
            table.c.ended_at,
            table.c.state,
            table.c.checkpoint,
            table.c.checkpoint_step,
        )
        .where(in_study(table.c.trial_id, study_id))
        .order_by(table.c.trial_id, table.c.number)
    )
    last: dict[int, int] = {}
    for trial_id, attempt, opened_at, ended_at, state, checkpoint, checkpoint_step in connection.execute(query):
        number = number_of(trial_id)
        if attempt > 1:
            moments[opened_at].reopened.append((number, last.get(number, -1)))
        if checkpoint is not None:
            last[number] = -1 if checkpoint_step is None else checkpoint_step
        if state == "paused":
            moments[ended_at].paused.append((number, last.get(number, -1)))
