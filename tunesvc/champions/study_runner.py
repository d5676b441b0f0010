"""Runs the studies of a watch in this process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from tunesvc.champions.version_drift import compare_versions
from tunesvc.coordinator.progress_events import Observer, Progress, ProgressEvent
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.drift.drift_report import DriftReport
from tunesvc.errors import TuneError
from tunesvc.execution.driver.ray_pool import ExecutorMaker
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.queries.operations.data_lineage import ROWS_OF
from tunesvc.queries.study_failure import find_failure
from tunesvc.run_options import RunOptions
from tunesvc.runs import refusal_recorded, run_observed
from tunesvc.runtime.data_preparation import prepare_version
from tunesvc.runtime.run_study import StudySource, create_or_resume
from tunesvc.spec import StudySpec
from tunesvc.spec.sections.watch_keys import Watch


class WatchInterrupted(Exception):
    """A watch was interrupted; the next one continues."""


class WatchWaits(WatchInterrupted):
    """A look ends here, and continues when a study has ended; the text has the reason."""

    def __init__(self, study: str, reason: str) -> None:
        super().__init__(reason)
        self.study = study


class StudyRunner(Protocol):
    """Prepares data and runs studies for a watch."""

    def prepare(self, spec: StudySpec, rows_of: str = "") -> DataManifest:
        """Return the version that a spec's data now are, once it is prepared.

        Args:
            spec: a spec with `data`.
            rows_of: a version whose rows are prepared, in place of those that the source gives now.

        Raises:
            WatchInterrupted: meanwhile.
            DataError: the data cannot be prepared.
        """
        ...

    def create(self, spec: StudySpec, version: str) -> StudyRecord:
        """Store a study, or update the one of that name.

        It uses the rows of a version of the data, whatever its source gives by then.
        """
        ...

    def run(self, record: StudyRecord, *, for_new_trials: bool = False) -> None:
        """Run a study to its end. Repeatable: one that has ended is left alone.

        Args:
            record: the study.
            for_new_trials: run it for trials that were enqueued after its end, too, and show what
                it waits for and what fails only.

        Raises:
            WatchInterrupted: meanwhile; what is recorded is kept.
            WatchWaits: another process runs it.
            TuneError: it is paused, or has failed.
        """
        ...

    def compare(self, before: DataManifest, after: DataManifest, options: Watch) -> DriftReport:
        """Return the drift of a version of the data against an earlier one.

        Raises:
            WatchInterrupted: meanwhile.
            ArtifactMissing: rows of a version were removed.
        """
        ...

    def is_current(self, connection: sa.Connection, *, lock: bool = False) -> bool:
        """Return False if the watch was replaced or removed; with `lock`, it cannot be meanwhile.

        Args:
            connection: in a transaction.
            lock: keep the watch as it is until the transaction ends.
        """
        ...

    def say(self, text: str) -> None:
        """Show a sentence to the user."""
        ...


@dataclass(frozen=True, slots=True)
class LocalRunner:
    """Runs studies on Ray, or on the given executor."""

    database: Database
    source: StudySource
    make_executor: ExecutorMaker
    observer: Observer
    interrupt: threading.Event

    def prepare(self, spec: StudySpec, rows_of: str = "") -> DataManifest:
        """See `StudyRunner`."""
        folder = Path(self.source.folder or ".").resolve()
        manifest = prepare_version(spec, folder, self.observer, self.interrupt, rows_of=rows_of)
        if manifest is None:
            raise WatchInterrupted
        return manifest

    def create(self, spec: StudySpec, version: str) -> StudyRecord:
        """See `StudyRunner`."""
        record = create_or_resume(
            self.database, spec, self.source, resume=True, observer=self.observer
        )
        with self.database.engine.begin() as connection:
            study_records.write_system_attr(connection, record.study_id, ROWS_OF, version)
        return record

    def run(self, record: StudyRecord, *, for_new_trials: bool = False) -> None:
        """See `StudyRunner`."""
        with self.database.engine.connect() as connection:
            state = study_records.find(connection, record.name).state
        if state is StudyState.PAUSED:
            raise TuneError(
                f"study {record.name!r} is paused: `tune resume {record.name}` continues it, and "
                "the watch after that continues from its result"
            )
        is_finished = state is StudyState.FINISHED and not for_new_trials
        if is_finished or state is StudyState.STOPPED:
            return
        observer = _QuietObserver(self.observer) if for_new_trials else self.observer
        options: RunOptions = {
            "make_executor": self.make_executor,
            "check": False,
            "observer": observer,
        }
        with refusal_recorded(self.database, record):
            interrupted = run_observed(
                self.database, record, self.source, options, observer, self.interrupt
            )
        if interrupted:
            raise WatchInterrupted
        failure = find_failure(self.database, record.name)
        if failure is not None:
            raise failure

    def compare(self, before: DataManifest, after: DataManifest, options: Watch) -> DriftReport:
        """See `StudyRunner`."""
        return compare_versions(DataStore.open(), before, after, options)

    def is_current(self, connection: sa.Connection, *, lock: bool = False) -> bool:
        """See `StudyRunner`. Always: it is the process that looks."""
        return True

    def say(self, text: str) -> None:
        """See `StudyRunner`."""
        self.observer.on_event(ProgressEvent("study", text))


_SHOWN = frozenset({"phase", "failed", "retry", "error"})


class _QuietObserver:
    """Passes on what a study waits for and what fails."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_event(self, event: ProgressEvent) -> None:
        """Pass an event on if it is one of `_SHOWN`."""
        if event.kind in _SHOWN:
            self._observer.on_event(event)

    def progress(self, progress: Progress) -> None:
        """Pass a snapshot on."""
        self._observer.progress(progress)
