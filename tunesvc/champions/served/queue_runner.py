"""Has servers run the studies of a watch: it queues them, and waits for none.

A look ends where it would have to wait, and is repeated when that study has ended. All looks until
its result use the version of the data that the first one has found.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tunesvc.champions.served.drift_process import DriftTask, compare_apart
from tunesvc.champions.study_runner import WatchInterrupted, WatchWaits
from tunesvc.coordinator.progress_events import SilentObserver
from tunesvc.db import study_records, submissions
from tunesvc.db.champions import served_watches
from tunesvc.db.champions.served_watches import ServedWatch, WatchSource
from tunesvc.db.engine.database import Database
from tunesvc.db.people.accounts import project_name
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.drift.drift_report import DriftReport
from tunesvc.errors import StudyExists, TuneError
from tunesvc.execution.driver.ray_pool import require_cluster_of_servers
from tunesvc.preparation.data_store import DataManifest, DataStore
from tunesvc.queries.operations.data_lineage import ROWS_OF
from tunesvc.queries.study_failure import find_failure
from tunesvc.runtime import run_study
from tunesvc.runtime.checkpoint_locations import delete_checkpoints
from tunesvc.runtime.data_preparation import prepare_version
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.run_study import StudySource
from tunesvc.runtime.submission import snapshot_source, submit_study
from tunesvc.spec import StudySpec
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

STOPPED_BY_LOOK = "tunesvc:stopped_by_look"
"""System attribute of a study that a look has stopped, because its data were removed: if the same
version comes again, the study continues."""


@dataclass(frozen=True, slots=True)
class QueueRunner:
    """Queues the studies of a watch, with its snapshot, project and user."""

    database: Database
    watch: ServedWatch
    source: WatchSource
    interrupt: threading.Event

    @property
    def folder(self) -> str:
        """Folder of the watch's snapshot, unpacked on this machine."""
        return snapshot_source(self.source.text, self.watch.snapshot).folder or "."

    def prepare(self, spec: StudySpec, rows_of: str = "") -> DataManifest:
        """See `StudyRunner`. During a look it is the version that its first step has found."""
        require_cluster_of_servers(spec)
        manifest = prepare_version(
            spec,
            Path(self.folder),
            SilentObserver(),
            self.interrupt,
            rows_of=rows_of or self.watch.data_version or "",
            is_served=True,
            is_snapshot=True,
        )
        if manifest is None:
            raise WatchInterrupted
        return manifest

    def compare(self, before: DataManifest, after: DataManifest, options: Watch) -> DriftReport:
        """See `StudyRunner`. Compares once for all looks until the result, in another process."""
        pair = (self.watch, after.version, before.version)
        with self.database.engine.connect() as connection:
            drift = served_watches.get_drift(connection, *pair)
        if drift is not None:
            return drift
        task = DriftTask(DataStore.open().address, before, after, options)
        drift = compare_apart(task, self.interrupt)
        if drift is None:
            raise WatchInterrupted
        with self.database.engine.begin() as connection:
            if not served_watches.record_drift(connection, *pair, drift):
                raise WatchInterrupted
        return drift

    def create(self, spec: StudySpec, version: str) -> StudyRecord:
        """See `StudyRunner`. Replaces a failed study without results if the watch has other code.

        Raises:
            WatchInterrupted: the watch was replaced or removed meanwhile.
            StudyExists: a study of this name is of another project, or of other data.
        """
        with self.database.engine.begin() as connection:
            if not served_watches.begin_version(connection, self.watch, version):
                raise WatchInterrupted
            record = find_own_study(connection, self.watch, spec.name)
            project = project_name(connection, self.watch.project_id)
        record = None if record is None else self._renew(record, spec)
        if record is None:
            new = NewSubmission(
                spec,
                self.source.text,
                self.watch.snapshot,
                project=project,
                provenance=self.source.provenance,
                rows_of=version,
            )
            return submit_study(self.database, new, submitted_by=self.watch.submitted_by)
        with self.database.engine.begin() as connection:
            study_records.write_system_attr(connection, record.study_id, ROWS_OF, version)
        return record

    def _renew(self, record: StudyRecord, spec: StudySpec) -> StudyRecord | None:
        """Give a stored study the current spec and code; return None if it was removed instead.

        Raises:
            StudyExists: it has results of another spec.
        """
        with self.database.engine.connect() as connection:
            submission = submissions.get(connection, record.study_id)
        has_other_code = submission is None or submission.snapshot != self.watch.snapshot
        if has_other_code and self._remove_failed(record):
            return None
        try:
            source = StudySource(self.source.text, record.source_dir)
            record = run_study.renew(self.database, record, spec, source)
        except StudyExists:
            if self._remove_failed(record):
                return None
            raise
        has_results = record.state in (StudyState.FINISHED, StudyState.STOPPED)
        if submission is not None and has_other_code and not has_results:
            with self.database.engine.begin() as connection:
                self._set_snapshot(connection, record.study_id)
        return record

    def _remove_failed(self, record: StudyRecord) -> bool:
        with self.database.engine.begin() as connection:
            user = self.watch.submitted_by
            if not study_records.remove_failed(connection, record.study_id, user):
                return False
        delete_checkpoints(record)
        return True

    def run(self, record: StudyRecord, *, for_new_trials: bool = False) -> None:
        """See `StudyRunner`. Runs none: raises `WatchWaits` until it has ended."""
        with self.database.engine.begin() as connection:
            record = study_records.get(connection, record.study_id)
            is_submitted = submissions.get(connection, record.study_id) is not None
            has_ended = record.state.is_terminal
            ended = (StudyState.FINISHED, StudyState.FAILED)
            runs_again = record.state in ended and for_new_trials
            if record.state is StudyState.STOPPED:
                attr = (connection, record.study_id, STOPPED_BY_LOOK)
                runs_again = study_records.remove_system_attr(*attr)
            if runs_again:
                if is_submitted:
                    self._set_snapshot(connection, record.study_id)
                else:
                    self._submit(connection, record.study_id)
                submissions.requeue(connection, record.study_id)
                has_ended, is_submitted = False, True
        if not has_ended:
            raise WatchWaits(record.name, _reason_to_wait(record, is_submitted=is_submitted))
        if record.state is StudyState.STOPPED and for_new_trials:
            raise TuneError(
                f"study {record.name!r} was stopped: `tune resume {record.name}` continues it"
            )
        if record.state is StudyState.FAILED:
            failure = find_failure(self.database, record.name)
            raise TuneError(
                f"{failure or record.reason}. `tune resume {record.name}` tries again, and `tune "
                "watch` with mended code replaces it"
            )

    def _submit(self, connection: sa.Connection, study_id: int) -> None:
        submissions.submit(
            connection,
            study_id,
            snapshot=self.watch.snapshot,
            submitted_by=self.watch.submitted_by,
            provenance=self.source.provenance,
        )

    def _set_snapshot(self, connection: sa.Connection, study_id: int) -> None:
        code = (self.watch.snapshot, self.source.provenance)
        submissions.set_snapshot(connection, study_id, *code)

    def is_current(self, connection: sa.Connection, *, lock: bool = False) -> bool:
        """See `StudyRunner`."""
        return served_watches.is_current(connection, self.watch, lock=lock)

    def say(self, text: str) -> None:
        """Log a sentence."""
        _logger.info("%s: %s", self.watch.family, text)


def find_own_study(connection: sa.Connection, watch: ServedWatch, name: str) -> StudyRecord | None:
    """Return the study of a name in the watch's project; None if there is no study of that name.

    Raises:
        StudyExists: it is of another project, and the watch must not touch it.
    """
    record = study_records.look_up(connection, name)
    if record is None:
        return None
    if study_records.project_of(connection, record.study_id) != watch.project_id:
        raise StudyExists(
            f"there is a study {name!r} of another project than the watch's: `tune project move "
            f"{name} PROJECT` moves it there, or rename it"
        )
    return record


def _reason_to_wait(record: StudyRecord, *, is_submitted: bool) -> str:
    name = record.name
    if record.state is StudyState.PAUSED:
        return f"study {name!r} is paused: `tune resume {name}` continues it"
    if not is_submitted:
        return (
            f"study {name!r} was started by `tune run` or `tune watch` and has not ended: continue "
            f"it there, or `tune rm {name}` lets servers run it"
        )
    return f"study {name!r} runs or is queued"
