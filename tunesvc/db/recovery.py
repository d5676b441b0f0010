"""Stored state with which a coordinator resumes a study: unfinished trials and their attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine import json_numbers
from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import attempts, decisions, reports, trials


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """An attempt of an unfinished trial. A live one belonged to a coordinator that is gone."""

    number: int
    state: AttemptState
    cursor: int
    """Number of its last recorded event."""
    cpus: float
    gpus: float
    running_s: float | None
    """Time since its start, by the database's clock; None before it starts."""
    silent_s: float | None
    """Time since its last report; None before it starts."""
    failure: str | None
    stop_cause: str | None
    checkpoint: str | None
    checkpoint_step: int | None


@dataclass(frozen=True, slots=True)
class UnfinishedTrial:
    """A trial in state running; it is paused when its last attempt is."""

    trial_id: int
    number: int
    attempts: Sequence[StoredExecution]
    reports: Sequence[tuple[int, float | None, Mapping[str, float]]]
    """Step, first objective and other metrics of its curve, by step."""
    forecast: float | None = None
    """Value that the pruner expected when it last decided to stop the trial."""

    def describe(self) -> tuple[int, list[tuple[int, str, int]]]:
        """Return its number, and each attempt's number, state and cursor, for the event log."""
        attempts = [(one.number, one.state.value, one.cursor) for one in self.attempts]
        return self.number, attempts


def unfinished_trials(connection: sa.Connection, study_id: int) -> list[UnfinishedTrial]:
    """Return the study's running trials, by number."""
    rows = connection.execute(
        sa.select(trials.c.trial_id, trials.c.number)
        .where(trials.c.study_id == study_id, trials.c.state == "running")
        .order_by(trials.c.number)
    ).all()
    stored, curves = _attempts(connection, study_id), _curves(connection, study_id)
    forecasts = _forecasts(connection, study_id)
    return [
        UnfinishedTrial(
            key,
            number,
            stored[key],
            curves[key],
            forecasts.get(number),
        )
        for key, number in rows
    ]


def has_live_attempt(connection: sa.Connection, trial_id: int) -> bool:
    """Return True if an attempt of the trial is recorded as live."""
    live = attempts.c.state.in_([AttemptState.OPENED, AttemptState.RUNNING])
    found = sa.select(sa.exists().where(attempts.c.trial_id == trial_id, live))
    return bool(connection.execute(found).scalar())


def other_objectives(
    connection: sa.Connection,
    study_id: int,
    names: Sequence[str],
) -> dict[int, dict[int, tuple[float, ...]]]:
    """Return the values of the objectives after the first, by trial number and step.

    Steps without a value for all of them are left out.

    Args:
        names: their metrics.
    """
    if not names:
        return {}
    rows = connection.execute(
        sa.select(trials.c.number, reports.c.step, reports.c.metrics)
        .join(trials, trials.c.trial_id == reports.c.trial_id)
        .where(trials.c.study_id == study_id, reports.c.value.is_not(None), ~reports.c.superseded)
        .order_by(trials.c.number, reports.c.step, reports.c.attempt)
    )
    found: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, step, stored in rows:
        metrics = json_numbers.load_metrics(stored)
        curve = found.setdefault(number, {})
        # An earlier attempt may have reported this step.
        curve.pop(step, None)
        if all(name in metrics for name in names):
            curve[step] = tuple(metrics[name] for name in names)
    return found


def last_code(connection: sa.Connection, study_id: int) -> str | None:
    """Return the digest of the source that the study's latest attempt ran, or None."""
    newest = (
        sa.select(attempts.c.code)
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .where(trials.c.study_id == study_id, attempts.c.code.is_not(None))
        .order_by(attempts.c.started_at.desc())
        .limit(1)
    )
    return connection.execute(newest).scalar()


def ended_hours(connection: sa.Connection, study_id: int) -> tuple[float, float]:
    """Return the hours of cores, and of GPUs, that the study's ended attempts have held."""
    seconds = sa.extract("epoch", attempts.c.ended_at - attempts.c.started_at)
    held = (
        sa.select(
            sa.func.coalesce(sa.func.sum(seconds * attempts.c.cpus), 0.0),
            sa.func.coalesce(sa.func.sum(seconds * attempts.c.gpus), 0.0),
        )
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .where(trials.c.study_id == study_id, attempts.c.ended_at.is_not(None))
    )
    cpu_s, gpu_s = connection.execute(held).one()
    return float(cpu_s) / 3600, float(gpu_s) / 3600


def paused_checkpoints(connection: sa.Connection, study_id: int) -> list[tuple[int, int, str]]:
    """Return trial number, step and location of each checkpoint with which an attempt paused."""
    rows = connection.execute(
        sa.select(trials.c.number, attempts.c.checkpoint_step, attempts.c.checkpoint)
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .where(
            trials.c.study_id == study_id,
            attempts.c.state == AttemptState.PAUSED,
            attempts.c.checkpoint_step.is_not(None),
        )
        .order_by(trials.c.number, attempts.c.number)
    )
    return [(number, step, checkpoint) for number, step, checkpoint in rows]


def _of_unfinished(column: sa.ColumnElement[int], study_id: int) -> sa.ColumnElement[bool]:
    running = sa.select(trials.c.trial_id).where(
        trials.c.study_id == study_id,
        trials.c.state == "running",
    )
    return column.in_(running)


def _attempts(connection: sa.Connection, study_id: int) -> Mapping[int, list[StoredExecution]]:
    """Return the attempts of all running trials, by trial id; one query, as many may be paused."""
    last_report = (
        sa.select(sa.func.max(reports.c.reported_at))
        .where(reports.c.trial_id == attempts.c.trial_id, reports.c.attempt == attempts.c.number)
        .scalar_subquery()
    )
    columns = (
        attempts.c.trial_id,
        attempts.c.number,
        attempts.c.state,
        attempts.c.cursor,
        attempts.c.cpus,
        attempts.c.gpus,
        _seconds_since(attempts.c.started_at),
        _seconds_since(sa.func.coalesce(last_report, attempts.c.started_at)),
        attempts.c.failure,
        attempts.c.stop_cause,
        attempts.c.checkpoint,
        attempts.c.checkpoint_step,
    )
    query = sa.select(*columns).where(_of_unfinished(attempts.c.trial_id, study_id))
    found: dict[int, list[StoredExecution]] = defaultdict(list)
    for row in connection.execute(query.order_by(attempts.c.trial_id, attempts.c.number)):
        found[row.trial_id].append(
            StoredExecution(
                row.number,
                AttemptState(row.state),
                *row[3:],
            )
        )
    return found


def _forecasts(connection: sa.Connection, study_id: int) -> Mapping[int, float]:
    """Return what the pruner expected of running trials that it stops, by number."""
    predicted = decisions.c.details["predicted"].astext
    query = (
        sa.select(decisions.c.trial_number, predicted)
        .join(
            trials,
            sa.and_(
                trials.c.study_id == decisions.c.study_id,
                trials.c.number == decisions.c.trial_number,
            ),
        )
        .where(
            decisions.c.study_id == study_id,
            decisions.c.kind == "prune",
            trials.c.state == "running",
            predicted.is_not(None),
        )
        .order_by(decisions.c.decision_id)
    )
    return {number: float(value) for number, value in connection.execute(query)}


def _seconds_since(time: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", sa.func.now() - time), sa.Double)


def _curves(
    connection: sa.Connection,
    study_id: int,
) -> Mapping[int, list[tuple[int, float | None, Mapping[str, float]]]]:
    query = (
        sa.select(
            reports.c.trial_id,
            reports.c.step,
            reports.c.value,
            reports.c.metrics,
        )
        .where(_of_unfinished(reports.c.trial_id, study_id), ~reports.c.superseded)
        .order_by(reports.c.trial_id, reports.c.step, reports.c.attempt)
    )
    found: dict[int, list[tuple[int, float | None, Mapping[str, float]]]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.trial_id].append((row.step, row.value, json_numbers.load_metrics(row.metrics)))
    return found
