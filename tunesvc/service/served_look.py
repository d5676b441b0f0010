"""One look of a server at a family, as far as it gets without waiting for a study."""

from __future__ import annotations

import threading

from tunesvc.champions.announcements import deliver_due
from tunesvc.champions.family_lock import locked_family
from tunesvc.champions.family_watch import FamilyWatch
from tunesvc.champions.promotion_hooks import hooks_of
from tunesvc.champions.served.queue_runner import STOPPED_BY_LOOK, QueueRunner, find_own_study
from tunesvc.champions.served.served_watch_check import require_served
from tunesvc.champions.watch_result import WatchResult
from tunesvc.db import study_records
from tunesvc.db.champions import served_watches
from tunesvc.db.champions.served_watches import ServedWatch, WatchSource
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.people.accounts import why_not_operator
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import (
    ArtifactStoreError,
    DatabaseUnavailable,
    StudyBusy,
    TuneError,
)
from tunesvc.preparation.data_store import DataStore
from tunesvc.runtime import study_requests
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)


class ServedLook:
    """A look at a family that servers watch.

    Args:
        database: of the family.
        family: its name.
        interrupt: ends the look; another server, or a later one, continues it.
    """

    def __init__(self, database: Database, family: str, interrupt: threading.Event) -> None:
        self._database = database
        self._family = family
        self.interrupt = interrupt
        """Ends the look."""
        self.problem = ""
        """Reason of the interrupt, if it is shown with the watch."""
        self.watch: ServedWatch | None = None
        """The watch, once it is known."""

    def run(self) -> None:
        """Look if it is due, and make deliveries that are due.

        Does nothing if another server does so already.

        Raises:
            DatabaseUnavailable: what is recorded is continued later.
        """
        self._run_locked(looks=True)

    def deliver(self) -> None:
        """Make deliveries that are due, and look at nothing. See `run`."""
        self._run_locked(looks=False)

    def _run_locked(self, *, looks: bool) -> None:
        try:
            with translate_unavailable(), locked_family(self._database, self._family):
                self._run(looks=looks)
        except StudyBusy as busy:
            _logger.debug("%s", busy)

    def _run(self, *, looks: bool) -> None:
        with self._database.engine.begin() as connection:
            watch = served_watches.find(connection, self._family)
            source = None if watch is None else served_watches.get_source(connection, watch)
            if watch is None or source is None:
                return
            problem = why_not_operator(connection, watch.submitted_by, watch.project_id)
            if problem:
                _logger.warning("watch of %s is stopped: %s", self._family, problem)
                served_watches.stop(connection, watch, problem)
                return
            is_due = looks and served_watches.is_due(connection, watch)
        self.watch = watch
        if is_due:
            self._look(watch, source)
        else:
            with self._database.engine.connect() as connection:
                if not served_watches.is_current(connection, watch):
                    return  # it was due, and replaced meanwhile
            require_served(source.spec)  # no command of a user, whatever the row says
            hooks = hooks_of(source.spec, None)
            deliver_due(self._database, self._family, self._log, hooks)

    def _look(self, watch: ServedWatch, source: WatchSource) -> None:
        """Look, and record what came of it."""
        try:
            with translate_unavailable():
                if self._has_to_wait(watch):
                    return
                result = self._find_result(watch, source)
        except DatabaseUnavailable:
            raise
        except ArtifactStoreError as error:
            self._fail(watch, str(error), keeps_version=True)
        except TuneError as error:
            self._fail(watch, str(error))
        except Exception as error:
            # A fault of one watch must not end the others; it is shown with the watch.
            _logger.exception("the look at %s failed", self._family)
            # Its text may hold a statement with its values: that is for the log.
            problem = f"an unexpected {type(error).__name__}: the server's log has more"
            self._fail(watch, problem, keeps_version=True)
        else:
            self._record(watch, result)

    def _find_result(self, watch: ServedWatch, source: WatchSource) -> WatchResult:
        require_served(source.spec)
        with self._database.engine.connect() as connection:
            find_own_study(connection, watch, self._family)  # refuses one of another project
        runner = QueueRunner(self._database, watch, source, self.interrupt)
        family = FamilyWatch(
            self._database,
            source.spec,
            runner,
            folder=runner.folder,
            user=watch.submitted_by,
            always=watch.always,
        )
        return family.look()

    def _has_to_wait(self, watch: ServedWatch) -> bool:
        """Return True if the look under way cannot continue yet; end it if it never will."""
        if watch.data_version is None:
            return False
        study = None
        if watch.waits_for:
            with self._database.engine.connect() as connection:
                study = study_records.look_up(connection, watch.waits_for)
        problem = ""
        if DataStore.open().find(watch.data_version) is None:
            self._stop(study, watch.submitted_by)
            problem = f"version {watch.data_version} of the data was removed"
        elif watch.waits_for and study is None:
            problem = f"study {watch.waits_for!r} was deleted"
        elif study is None or study.state.is_terminal:
            return False
        with self._database.engine.begin() as connection:
            if problem:
                restarted = f"{problem}, so that the look begins again with today's data"
                served_watches.restart(connection, watch, restarted)
            else:
                served_watches.wait(connection, watch, watch.waits_for)
        return True

    def _stop(self, study: StudyRecord | None, user: str) -> None:
        """Stop a study whose version of the data is there no more."""
        if study is not None and study.state in (StudyState.CREATED, StudyState.RUNNING):
            with self._database.engine.begin() as connection:
                study_records.write_system_attr(connection, study.study_id, STOPPED_BY_LOOK, True)
            study_requests.request(self._database, study.study_id, "stop", {}, user)

    def _record(self, watch: ServedWatch, result: WatchResult) -> None:
        if result.outcome == "interrupted":
            if self.problem:
                self._fail(watch, self.problem, keeps_version=True)
            return
        with self._database.engine.begin() as connection:
            if result.waits_for:
                served_watches.wait(connection, watch, result.waits_for)
            else:
                _logger.info("%s: %s (%s)", self._family, result.outcome, result.reason)
                served_watches.finish(connection, watch, result.outcome, result.detail)

    def _fail(self, watch: ServedWatch, problem: str, *, keeps_version: bool = False) -> None:
        _logger.warning("the look at %s failed: %s", self._family, problem)
        with self._database.engine.begin() as connection:
            served_watches.fail(connection, watch, problem, keeps_version=keeps_version)

    def _log(self, text: str) -> None:
        _logger.info("%s", text)
