"""What a coordinator needs to take a study up again: its unfinished trials with what their attempts left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tunesvc.db.engine import json_numbers
from tunesvc.db.schema.states import AttemptState
from tunesvc.db.schema.tables import attempts, reports, trials


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt of a trial that is not over. A live one belonged to a coordinator that is gone."""

    number: int
    state: AttemptState
    cursor: int
    """The last of its events that is recorded."""
    gpus: float
    running_s: float | None
    """How long ago it started, by the database's clock; None when it has not."""
    silent_s: float | None
    """How long ago it last reported; None when it has not started."""
    failure: str | None
    stop_cause: str | None
    checkpoint: str | None
    checkpoint_step: int | None


@dataclass(frozen=True, slots=True)
class UnfinishedTrial:
    """A trial whose state is running; it is paused when its last attempt is."""

    trial_id: int
    number: int
    attempts: Sequence[StoredAttempt]
    reports: Sequence[tuple[int, float | None, Mapping[str, float]]]
    """Step, first objective and other metrics of its curve, by step."""

    def describe(self) -> tuple[int, list[tuple[int, str, int]]]:
        """Number, and number, state and cursor of each attempt: see `tunesvc.instrumentation.event_log`."""
        return self.number, [(attempt.number, attempt.state.value, attempt.cursor) for attempt in self.attempts]


def unfinished_trials(connection: sa.Connection, study_id: int) -> list[UnfinishedTrial]:
    """The study's running trials, by number."""
    rows = connection.execute(
        sa.select(trials.c.trial_id, trials.c.number)
        .where(trials.c.study_id == study_id, trials.c.state == "running")
        .order_by(trials.c.number)
    ).all()
    tried, curves = _attempts(connection, study_id), _curves(connection, study_id)
    return [UnfinishedTrial(row.trial_id, row.number, tried[row.trial_id], curves[row.trial_id]) for row in rows]


def has_live_attempt(connection: sa.Connection, trial_id: int) -> bool:
    """Whether an attempt of the trial is not over, as far as anybody has recorded."""
    live = attempts.c.state.in_([AttemptState.OPENED, AttemptState.RUNNING])
    found = sa.select(sa.exists().where(attempts.c.trial_id == trial_id, live))
    return bool(connection.execute(found).scalar())


def other_objectives(
    connection: sa.Connection, study_id: int, names: Sequence[str]
) -> dict[int, dict[int, tuple[float, ...]]]:
    """By trial number and step of its curve: the values of the objectives after the first, where it reported them all.

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
    for number, step, written in rows:
        metrics = json_numbers.load_metrics(written)
        curve = found.setdefault(number, {})
        curve.pop(step, None)  # an earlier attempt's
        if all(name in metrics for name in names):
            curve[step] = tuple(metrics[name] for name in names)
    return found


def last_code(connection: sa.Connection, study_id: int) -> str | None:
    """The digest of the objective's source that the study's latest attempt ran, or None."""
    newest = (
        sa.select(attempts.c.code)
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .where(trials.c.study_id == study_id, attempts.c.code.is_not(None))
        .order_by(attempts.c.started_at.desc())
        .limit(1)
    )
    return connection.execute(newest).scalar()


def gpu_hours(connection: sa.Connection, study_id: int) -> float:
    """GPU hours that the study's ended attempts have held."""
    seconds = sa.extract("epoch", attempts.c.ended_at - attempts.c.started_at)
    spent = (
        sa.select(sa.func.coalesce(sa.func.sum(seconds * attempts.c.gpus), 0.0))
        .join(trials, trials.c.trial_id == attempts.c.trial_id)
        .where(trials.c.study_id == study_id, attempts.c.gpus > 0, attempts.c.ended_at.is_not(None))
    )
    return float(connection.execute(spent).scalar_one()) / 3600


def _of_unfinished(column: sa.ColumnElement[int], study_id: int) -> sa.ColumnElement[bool]:
    return column.in_(sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.state == "running"))


def _attempts(connection: sa.Connection, study_id: int) -> Mapping[int, list[StoredAttempt]]:
    """Of all running trials, by trial id: paused ones may be many."""
    last_word = (
        sa.select(sa.func.max(reports.c.reported_at))
        .where(reports.c.trial_id == attempts.c.trial_id, reports.c.attempt == attempts.c.number)
        .scalar_subquery()
    )
    columns = (
        attempts.c.trial_id,
        attempts.c.number,
        attempts.c.state,
        attempts.c.cursor,
        attempts.c.gpus,
        _seconds_since(attempts.c.started_at),
        _seconds_since(sa.func.coalesce(last_word, attempts.c.started_at)),
        attempts.c.failure,
        attempts.c.stop_cause,
        attempts.c.checkpoint,
        attempts.c.checkpoint_step,
    )
    query = sa.select(*columns).where(_of_unfinished(attempts.c.trial_id, study_id))
    found: dict[int, list[StoredAttempt]] = defaultdict(list)
    for row in connection.execute(query.order_by(attempts.c.trial_id, attempts.c.number)):
        found[row.trial_id].append(StoredAttempt(row.number, AttemptState(row.state), *row[3:]))
    return found


def _seconds_since(moment: sa.ColumnElement[datetime]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", sa.func.now() - moment), sa.Double)


def _curves(
    connection: sa.Connection, study_id: int
) -> Mapping[int, list[tuple[int, float | None, Mapping[str, float]]]]:
    query = (
        sa.select(reports.c.trial_id, reports.c.step, reports.c.value, reports.c.metrics)
        .where(_of_unfinished(reports.c.trial_id, study_id), ~reports.c.superseded)
        .order_by(reports.c.trial_id, reports.c.step, reports.c.attempt)
    )
    found: dict[int, list[tuple[int, float | None, Mapping[str, float]]]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.trial_id].append((row.step, row.value, json_numbers.load_metrics(row.metrics)))
    return found
