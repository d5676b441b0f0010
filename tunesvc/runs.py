"""Runs of a stored study: shown, watched, limited, and ended with an error when nothing came of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from tunesvc.assembly import Source, run_study
from tunesvc.callbacks import Callback, CallbackObserver
from tunesvc.coordinator.progress import Note, Observer, SilentObserver
from tunesvc.execute.ray_start import ExecutorMaker, ray_executor
from tunesvc.insights.answer import answer_rows, recommended_trials
from tunesvc.insights.failure import find_failure
from tunesvc.insights.overview import get_study
from tunesvc.insights.rows import StudyView
from tunesvc.interrupts import TimeLimit, interruptible
from tunesvc.store.database import Database
from tunesvc.store.studies import StudyRecord
from tunesvc.views.automatic import automatic_view
from tunesvc.words import duration, number


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The way in which a run is shown, watched and ended."""

    progress: bool = True
    """Show the run: live in a notebook or terminal, else as lines on standard error."""
    observer: Observer | None = None
    """Gets what would be shown instead."""
    callbacks: Sequence[Callback] = ()
    """Called with each finished trial, in Optuna's form: `callback(study, trial)`."""
    timeout: float | None = None
    """Seconds from the first step after which this run stops in order; the study can be resumed."""
    interrupt: threading.Event | None = None
    """Stops the run in order once it is set; without it Ctrl-C does, and raises `KeyboardInterrupt`."""
    check: bool = True
    """Raise `StudyFailed` when no trial came to a result."""
    make_executor: ExecutorMaker = field(default=ray_executor)
    """Of a Ray that others use too, see `Rays`."""

    def view(self, title: str, interrupt: threading.Event) -> AbstractContextManager[Observer]:
        """Return the context manager of the observer that shows the run."""
        if self.observer is not None:
            return nullcontext(self.observer)
        return automatic_view(title, interrupt) if self.progress else nullcontext(SilentObserver())


def run_record(
    database: Database, record: StudyRecord, source: Source, options: RunOptions, *, standby: bool = False
) -> bool:
    """Run a stored study under the view, the callbacks and the limits of `options`; returns whether it was interrupted.

    Raises:
        StudyFailed: no trial came to a result, and `options.check` is on.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    with (
        interruptible(record.name, options.interrupt) as interrupt,
        options.view(record.name, interrupt) as observer,
    ):
        return run_observed(database, record, source, options, observer, interrupt, standby=standby)


def run_observed(
    database: Database,
    record: StudyRecord,
    source: Source,
    options: RunOptions,
    observer: Observer,
    interrupt: threading.Event,
    *,
    standby: bool = False,
) -> bool:
    """Do the same under a view that is open already."""
    callbacks = limit = None
    watching = observer
    if options.callbacks:
        watching = callbacks = CallbackObserver(watching, options.callbacks, database, record.name, record.study_id)
    if options.timeout is not None:
        watching = limit = TimeLimit(watching, options.timeout, interrupt)
    try:
        closing = run_study(
            database,
            record,
            source,
            make_executor=options.make_executor,
            observer=watching,
            interrupt=interrupt,
            standby=standby,
        )
    finally:
        if limit is not None:
            limit.close()
    if callbacks is not None:
        callbacks.close()
    interrupted = interrupt.is_set() and closing.state is None
    if options.observer is None:
        observer.note(Note("over", _summary(database, get_study(database, record.name), interrupted)))
    error = find_failure(database, record.name) if options.check else None
    if error is not None:
        raise error
    return interrupted


def _summary(database: Database, view: StudyView, interrupted: bool) -> str:
    """Return the end of a run in a line: state, counts, and the best trial."""
    counts = view.counts
    reason = f": {view.reason}" if view.reason and not interrupted else ""
    text = f"{'interrupted' if interrupted else view.state} after {duration(view.active_s)}{reason}"
    text += f"; {counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed"
    rows = answer_rows(database, view, recommended_trials(database, view))
    if not rows:
        return text
    values = zip(view.objectives, rows[0].values or (), strict=False)
    shown = ", ".join(f"{objective.name} = {number(value)}" for objective, value in values)
    return f"{text}; best {shown} (trial {rows[0].number})"
