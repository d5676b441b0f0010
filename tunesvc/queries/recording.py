"""Recording of a study's steps, for replay.

A step of the coordinator is one transaction, and every row has that transaction's time. So rows of
one time belong to one step, and the order of asks, reports, decisions and ends needs no columns of
its own. A prefetched proposal records the time of the step after which it was made.
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
from tunesvc.errors import StudyWithoutSpec
from tunesvc.queries.rows import StudyView
from tunesvc.queries.sql import in_study
from tunesvc.queries.warm_start_source import load_warm_start
from tunesvc.search.prefetched_proposals import DRAWN_AT
from tunesvc.search.replay import RecordedStep, Recording


def load_recording(database: Database, view: StudyView) -> Recording:
    """Return all recorded steps of a study; of a running one, those recorded so far.

    Raises:
        StudyWithoutSpec: no decisions of the study are recorded.
    """
    if view.spec is None:
        raise StudyWithoutSpec(view.name, "it has no recorded decisions")
    steps: dict[datetime, RecordedStep] = defaultdict(RecordedStep)
    with database.engine.connect() as connection:
        _read_decisions(connection, view.study_id, steps)
        _read_reports(connection, view, steps)
        _read_attempts(connection, view.study_id, steps)
        _read_ends(connection, view.study_id, steps)
    trials = PgStorage(database).get_all_trials(view.study_id, deepcopy=False)
    ordered = [steps[step_time] for step_time in sorted(steps)]
    spec = view.spec
    return Recording(
        spec,
        {trial.number: trial for trial in trials},
        ordered,
        lambda: load_warm_start(database, spec),
    )


def _read_ends(
    connection: sa.Connection,
    study_id: int,
    steps: dict[datetime, RecordedStep],
) -> None:
    columns = tables.trials.c
    query = (
        sa.select(columns.number, columns.ended_at)
        .where(columns.study_id == study_id, columns.ended_at.is_not(None))
        .order_by(columns.number)
    )
    for number, step_time in connection.execute(query):
        steps[step_time].ended.append(number)


def _read_decisions(
    connection: sa.Connection,
    study_id: int,
    steps: dict[datetime, RecordedStep],
) -> None:
    columns = tables.decisions.c
    query = (
        sa.select(
            columns.trial_number,
            columns.kind,
            columns.details,
            columns.decided_at,
        )
        .where(
            columns.study_id == study_id,
            columns.kind.in_(["ask", "prune", "pause", "promote"]),
        )
        .order_by(columns.decision_id)
    )
    for number, kind, details, step_time in connection.execute(query):
        if kind == "ask":
            steps[step_time].taken.append(number)
            prefetched_at = details.get(DRAWN_AT)
            asked_at = datetime.fromisoformat(prefetched_at) if prefetched_at else step_time
            steps[asked_at].drawn.append((number, details))
        elif kind == "promote":
            steps[step_time].promoted[number] = details
        else:
            steps[step_time].pruned[number] = details


def _read_reports(
    connection: sa.Connection,
    view: StudyView,
    steps: dict[datetime, RecordedStep],
) -> None:
    # Includes reports that a later attempt superseded: at their time they counted.
    columns = tables.reports.c
    names = [objective.name for objective in view.objectives[1:]]
    metrics = columns.metrics if names else sa.null()
    query = (
        sa.select(
            columns.trial_id,
            columns.step,
            columns.value,
            metrics,
            columns.reported_at,
        )
        .where(in_study(columns.trial_id, view.study_id), columns.value.is_not(None))
        .order_by(columns.trial_id, columns.attempt, columns.step)
    )
    for trial_id, step, value, stored, step_time in connection.execute(query):
        others = json_numbers.load_metrics(stored)
        values = (value, *map(others.get, names))
        steps[step_time].reports.append((number_of(trial_id), step, values))


def _read_attempts(
    connection: sa.Connection,
    study_id: int,
    steps: dict[datetime, RecordedStep],
) -> None:
    """Record pauses, and restarts from the last checkpoint."""
    columns = tables.attempts.c
    query = (
        sa.select(
            columns.trial_id,
            columns.number,
            columns.opened_at,
            columns.ended_at,
            columns.state,
            columns.checkpoint,
            columns.checkpoint_step,
        )
        .where(in_study(columns.trial_id, study_id))
        .order_by(columns.trial_id, columns.number)
    )
    last: dict[int, int] = {}
    """Step of the last checkpoint by trial; -1 before the first report."""
    for row in connection.execute(query):
        number = number_of(row.trial_id)
        if row.number > 1:
            steps[row.opened_at].reopened.append((number, last.get(number, -1)))
        if row.checkpoint is not None:
            last[number] = -1 if row.checkpoint_step is None else row.checkpoint_step
        if row.state == "paused":
            steps[row.ended_at].paused.append((number, last.get(number, -1)))
