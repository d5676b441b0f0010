"""Sends the trials of a stored study to one tracker: each report once, each end once.

Follows what is committed, beside the coordinator and whether or not there is one. What the tracker
has is recorded with the study; what an interrupted call left is asked of the tracker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from tunesvc.db import logger_records, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.logger_records import UnsentTrial
from tunesvc.integrations.loggers.trial_logger import (
    LoggedPoint,
    LoggedStudy,
    LoggedTrial,
    TrialLogger,
)
from tunesvc.queries.rows import Point, StudyView, TrialRow
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.attempt_events import get_curves, list_attempts, list_decisions
from tunesvc.queries.trials.population_tree import get_parents
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.util.redaction import redacted

_REASONS = ("prune", "exploit", "stop", "fail")
"""Kinds of decisions that end a trial."""
_OVERLAP = timedelta(seconds=10)
"""Reports of transactions that began before the last look and were committed after it."""
_FAILURES = 3
"""Trials in a row that a tracker may refuse until it counts as away."""
_TEXT_MAX = 200
"""Characters of an error; libraries' texts may have pages."""


class TrialsNotSent(Exception):
    """A tracker is away, or refuses trials. They are sent again with the next look."""


@dataclass(slots=True)
class _OpenRun:
    """State at the tracker of a trial that this process sends."""

    run: str | None = None
    steps: set[int] = field(default_factory=set)
    state: str = ""
    last_step: int = 0


class TrialSender:
    """Sends to one place; see `send_new`.

    Args:
        database: where the study is.
        study_id: the study.
        logger: an open logger.
        logger_id: its record.
    """

    def __init__(
        self, database: Database, study_id: int, logger: TrialLogger, logger_id: int
    ) -> None:
        self._database = database
        self._study_id = study_id
        self._logger = logger
        self._study = read_study(database, study_id)
        self._logger_id = logger_id
        self.sent = 0
        """Finished trials that were sent completely."""
        self.moved_at = time.monotonic()
        """Time of the last message, or of the start."""
        self._runs: dict[int, _OpenRun] = {}
        self._looked_at: datetime | None = None

    def send_new(self) -> None:
        """Send what is new of all trials.

        Raises:
            TrialsNotSent: something could not be sent; the text has the first reason.
        """
        view = get_study_by_id(self._database, self._study_id)
        refused: list[TrialsNotSent] = []
        in_a_row, after, since = 0, -1, self._looked_at
        while in_a_row < _FAILURES and (batch := self._batch(after)):
            trials = _Trials(self._database, view, self._study, batch, self._runs.keys(), since)
            for one in batch:
                try:
                    self._send(one, trials)
                    in_a_row = 0
                except TrialsNotSent as error:
                    refused.append(error)
                    in_a_row += 1
                    if in_a_row == _FAILURES:
                        break
            after = batch[-1].number
            self._looked_at = max(filter(None, (self._looked_at, trials.newest)), default=None)
        if refused:
            raise refused[0]

    def _batch(self, after: int) -> tuple[UnsentTrial, ...]:
        """Return a batch of trials, and reserve those that no process has begun to send."""
        with self._database.engine.begin() as connection:
            batch = logger_records.list_unsent(
                connection,
                self._study_id,
                self._logger_id,
                running=self._logger.live,
                after=after,
            )
            if new := [one.trial_id for one in batch if not one.is_reserved]:
                logger_records.reserve(connection, self._logger_id, new)
        return batch

    def _send(self, one: UnsentTrial, trials: _Trials) -> None:
        trial = trials.logged(one.number, self._runs.get(one.number))
        if trial is None:
            return
        open_run = self._runs.get(one.number) or self._opened(one, trial)
        points = [point for point in trials.points(one.number) if point.step not in open_run.steps]
        if not points and open_run.state == trial.state:
            return
        self._runs.pop(one.number, None)  # until it is known to be sent
        with refusals():
            run = self._logger.send(open_run.run, trial, points)
        self.moved_at = time.monotonic()
        if run != open_run.run or trial.is_finished:
            with self._database.engine.begin() as connection:
                logger_records.record(
                    connection, self._logger_id, one.trial_id, run, complete=trial.is_finished
                )
        if trial.is_finished:
            self.sent += 1
            return
        steps = open_run.steps.union(point.step for point in points)
        self._runs[one.number] = _OpenRun(run, steps, trial.state, trial.last_step)

    def _opened(self, one: UnsentTrial, trial: LoggedTrial) -> _OpenRun:
        """Return what the tracker has of a trial that this process sends for the first time."""
        if not one.is_reserved:
            return _OpenRun()
        with refusals():
            run, steps = self._logger.recover(trial, one.run)
        return _OpenRun(run, set(steps))


@contextmanager
def refusals() -> Iterator[None]:
    """Turn any error of a tracker's library into one of ours, on one line."""
    try:
        yield
    except Exception as error:
        text = " ".join(redacted(f"{type(error).__name__}: {error}").split())
        raise TrialsNotSent(text[:_TEXT_MAX]) from error


class _Trials:
    """A batch of trials as they are stored now."""

    def __init__(
        self,
        database: Database,
        view: StudyView,
        study: LoggedStudy,
        batch: Sequence[UnsentTrial],
        known: Collection[int],
        looked_at: datetime | None,
    ) -> None:
        """Read a batch; of trials that are `known` and still run, only newer reports."""
        numbers = [one.number for one in batch]
        self._database = database
        self._view = view
        self._study = study
        rows = view.as_given(rows_of(database, view.study_id, numbers))
        self._rows = {row.number: row for row in rows}
        self._curves: dict[int, Sequence[Point]] = {}
        # After the rows: a trial that has finished there has its whole curve here.
        partly = [row.number for row in rows if row.number in known and not row.is_finished]
        self._read_curves([number for number in numbers if number not in partly], None)
        self._read_curves(partly, None if looked_at is None else looked_at - _OVERLAP)
        self._parents = get_parents(database, view.study_id) if view.has_population else {}
        times = (points[-1].reported_at for points in self._curves.values() if points)
        self.newest = max(times, default=None)

    def _read_curves(self, numbers: Sequence[int], since: datetime | None) -> None:
        if not numbers:
            return
        curves = get_curves(self._database, self._view.study_id, numbers=numbers, since=since)
        self._curves |= {curve.trial_number: curve.points for curve in curves}

    def points(self, number: int) -> list[LoggedPoint]:
        """Return the reports of a trial that were read, by step."""
        name = self._view.objectives[0].name
        points = []
        for point in self._curves.get(number, ()):
            value = {} if point.value is None else {name: point.value}
            metrics = {**value, **point.metrics}
            if metrics:
                points.append(LoggedPoint(point.step, point.reported_at, metrics))
        return points

    def logged(self, number: int, sent: _OpenRun | None) -> LoggedTrial | None:
        """Return a trial; None if it was deleted meanwhile."""
        row = self._rows.get(number)
        if row is None:
            return None
        points = self.points(number)
        last = max((point.step for point in points), default=0)
        return LoggedTrial(
            study=self._study,
            number=number,
            state=row.state,
            is_finished=row.is_finished,
            params=self._params(row),
            results=self._results(row, points) if row.is_finished else {},
            attrs=row.attrs,
            tags=tuple(dict.fromkeys((*self._view.tags, *row.tags))),
            labels=self._labels(row),
            started_at=row.started_at or row.ended_at or self._view.created_at,
            ended_at=row.ended_at,
            last_step=last if sent is None else max(last, sent.last_step),
        )

    def _params(self, row: TrialRow) -> Mapping[str, Any]:
        spec = self._view.spec
        if (spec is None or spec.define_by_run) and not row.is_finished:
            return {}
        return {**({} if spec is None else spec.constants), **row.params}

    def _results(self, row: TrialRow, points: Iterable[LoggedPoint]) -> dict[str, float]:
        reported = {name for point in points for name in point.metrics}
        results = {name: value for name, value in row.metrics.items() if name not in reported}
        for objective, value in zip(self._view.objectives, row.values or (), strict=False):
            prefix = "result/" if objective.name in reported else ""
            results[prefix + objective.name] = value
        return results

    def _labels(self, row: TrialRow) -> dict[str, str]:
        parent = self._parents.get(row.number)
        labels = {
            "tunesvc.study": self._study.name,
            "tunesvc.trial": str(row.number),
            "tunesvc.state": row.state,
            "tunesvc.attempts": str(row.attempts),
            "tunesvc.reason": self._reason(row) if row.is_finished else "",
            "tunesvc.failure": row.failure if row.state == "failed" else "",
            "tunesvc.parent": "" if parent is None else f"trial {parent.trial}, step {parent.step}",
            "tunesvc.note": row.note,
            "tunesvc.url": _url(self._view, row.number),
        }
        return {name: text for name, text in labels.items() if text}

    def _reason(self, row: TrialRow) -> str:
        """Return why a trial was pruned, stopped, or has failed."""
        if row.state == "complete":
            return ""
        study_id, number = self._view.study_id, row.number
        if row.state == "failed":
            attempts = list_attempts(self._database, study_id, numbers=[number])
            return (attempts[-1].message or "") if attempts else ""
        decisions = list_decisions(self._database, study_id, number=number)
        return next((one.reason for one in decisions[::-1] if one.kind in _REASONS), "")


def read_study(database: Database, study_id: int) -> LoggedStudy:
    """Return a study as loggers get it.

    Raises:
        StudyNotFound: it was deleted.
    """
    with database.engine.connect() as connection:
        record = study_records.get(connection, study_id)
    description = "" if record.spec is None else record.spec.description
    return LoggedStudy(record.name, record.key, description)


def _url(view: StudyView, number: int) -> str:
    """Return the page of a trial, if it is known where studies are shown."""
    base = os.environ.get("TUNE_DASHBOARD_URL", "").rstrip("/")
    return f"{base}/studies/{quote(str(view.study_id))}/trials/{number}" if base else ""
