"""Runs of a stored study, with display, callbacks, limits and an error if there is no result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from tunesvc.callbacks import CallbackObserver
from tunesvc.coordinator.progress_events import Observer, ProgressEvent, SilentObserver
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import (
    DatabaseError,
    DatabaseUnavailable,
    ExecutorError,
    LeaseLost,
    StudyBusy,
    StudyNotFound,
    StudyWithoutSpec,
    TuneError,
)
from tunesvc.execution.driver.ray_pool import ray_executor
from tunesvc.queries.recommendation import answer_rows, get_recommendation
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_failure import find_failure
from tunesvc.run_options import RunOptions
from tunesvc.runtime.interrupts import TimeLimit, interruptible
from tunesvc.runtime.logger_process import logged
from tunesvc.runtime.logging_observer import LoggingObserver
from tunesvc.runtime.named_loggers import require_loggers
from tunesvc.runtime.run_study import Serving, StudySource, run_study
from tunesvc.runtime.stored_recommendation import store_recommendation
from tunesvc.util.formatting import duration, number
from tunesvc.views.automatic import automatic_view


def open_view(
    options: RunOptions,
    title: str,
    interrupt: threading.Event,
    database: Callable[[], Database],
) -> AbstractContextManager[Observer]:
    """Return the context manager of the observer that shows the run.

    Views that read the study call `database` in another thread.
    """
    observer = options.get("observer")
    if observer is not None:
        return nullcontext(observer)
    if not options.get("progress", True):
        return nullcontext(SilentObserver())
    return automatic_view(title, interrupt, database)


def run_record(
    database: Database,
    record: StudyRecord,
    source: StudySource,
    options: RunOptions,
    *,
    standby: bool = False,
) -> bool:
    """Run a stored study with the options' view, callbacks and limits; return True if interrupted.

    Raises:
        StudyFailed: no trial has a result, and `check` is on.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    with (
        interruptible(record.name, options.get("interrupt")) as interrupt,
        open_view(options, record.name, interrupt, lambda: database) as observer,
    ):
        return run_observed(database, record, source, options, observer, interrupt, standby=standby)


def run_observed(
    database: Database,
    record: StudyRecord,
    source: StudySource,
    options: RunOptions,
    observer: Observer,
    interrupt: threading.Event,
    *,
    standby: bool = False,
    serving: Serving | None = None,
) -> bool:
    """Do the same with a view that is already open. For `serving` see `run_study`."""
    callbacks = limit = None
    watching: Observer = LoggingObserver(observer, record.name)
    if called := options.get("callbacks"):
        watching = callbacks = CallbackObserver(
            watching,
            called,
            database,
            record.name,
            record.study_id,
        )
    if (timeout := options.get("timeout")) is not None:
        watching = limit = TimeLimit(watching, timeout, interrupt)
    loggers = () if record.spec is None else record.spec.loggers
    require_loggers(loggers, source.folder or record.source_dir)
    try:
        with logged(database, record, loggers, watching, interrupt) as watched:
            shutdown = run_study(
                database,
                record,
                source,
                make_executor=options.get("make_executor", ray_executor),
                observer=watched,
                interrupt=interrupt,
                standby=standby,
                serving=serving,
            )
    finally:
        if limit is not None:
            limit.close()
    if callbacks is not None:
        callbacks.close()
    store_recommendation(database, record.study_id)
    interrupted = interrupt.is_set() and shutdown.state is None
    if options.get("observer") is None:
        view = get_study(database, record.name)
        observer.on_event(ProgressEvent("over", _summary(database, view, interrupted)))
    error = find_failure(database, record.name) if options.get("check", True) else None
    if error is not None:
        raise error
    return interrupted


@contextmanager
def refusal_recorded(database: Database, record: StudyRecord) -> Iterator[None]:
    """Record why the first run of a study is refused: it has failed with this reason.

    It is for a caller that has just created or renewed the study. Another one, such as `tune
    resume`, may lack what the process that runs the study has.
    """
    try:
        yield
    except TuneError as refusal:
        if not isinstance(refusal, _NOT_REFUSED):
            with suppress(DatabaseUnavailable), database.engine.begin() as connection:
                study_records.refuse(connection, record.study_id, str(refusal))
        raise


_NOT_REFUSED = (
    StudyBusy,
    StudyWithoutSpec,
    LeaseLost,
    StudyNotFound,
    ExecutorError,
    DatabaseError,
)
"""Errors of a run that may well succeed the next time."""


def _summary(database: Database, view: StudyView, interrupted: bool) -> str:
    """Return the end of a run in a line: state, counts, and the best trial."""
    counts = view.counts
    reason = f": {view.reason}" if view.reason and not interrupted else ""
    state = "interrupted" if interrupted else view.state
    text = f"{state} after {duration(view.active_s)}{reason}"
    text += f"; {counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    text += f", {counts.stopped} stopped" if counts.stopped else ""
    rows = answer_rows(database, view, get_recommendation(database, view))
    if not rows:
        return text
    values = zip(view.objectives, rows[0].values or (), strict=False)
    shown = ", ".join(f"{objective.name} = {number(value)}" for objective, value in values)
    return f"{text}; best {shown} (trial {rows[0].number})"
