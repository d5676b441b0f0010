"""A study that this server runs, with its coordinator in a thread of its own."""

from __future__ import annotations

import threading

from tunesvc import runs
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.coordinator.progress_events import Observer, SilentObserver
from tunesvc.coordinator.slot_grant import SlotGrant
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable, LeaseLost, StudyBusy, StudyNotFound, TuneError
from tunesvc.execution.driver.ray_pool import ExecutorMaker
from tunesvc.runtime.run_study import Serving
from tunesvc.runtime.submission import submitted_source
from tunesvc.runtime.takeover import BACK_S
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

UNBEGUN_S = 5.0
"""Longest wait for the end of a study that has no coordinator yet."""
FIRST_GRANT_S = 3.0
"""Longest wait for the supervisor's next step, less than a lease lasts."""


class ServedStudy:
    """Runs a study until it ends, is interrupted, or turns out to be another server's.

    Args:
        study_id: the study; it was submitted.
        database: database of the study; the caller closes it.
        make_executor: makes its executor on a Ray of this server.
        interrupt: ends the run in order.
        observer: gets its progress.
        back_s: see `Serving`.
    """

    def __init__(
        self,
        study_id: int,
        database: Database,
        *,
        make_executor: ExecutorMaker,
        interrupt: threading.Event,
        observer: Observer | None = None,
        back_s: float = BACK_S,
    ) -> None:
        self._study_id = study_id
        self._database = database
        self._make_executor = make_executor
        self._interrupt = interrupt
        self._observer = observer or SilentObserver()
        self._back_s = back_s
        self._grant = SlotGrant(slots=0)
        self._is_granted = threading.Event()
        self._coordinator: Coordinator | None = None
        self._thread = threading.Thread(target=self._run, name=f"study-{study_id}", daemon=True)

    @property
    def is_alive(self) -> bool:
        """True until its thread has ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Run it in a thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; not for long while it waits for Ray, which cannot be interrupted."""
        self._thread.join(UNBEGUN_S)
        if self._coordinator is not None:
            self._thread.join()

    def apply(self, grant: SlotGrant) -> None:
        """Let it use this part of the cluster from now on."""
        self._grant = grant
        self._is_granted.set()
        if self._coordinator is not None:
            self._coordinator.grant = grant

    def _run(self) -> None:
        """Run the study, and record why it could not be run."""
        try:
            self._run_coordinator()
        except (StudyBusy, LeaseLost) as error:
            _logger.debug("study %d: %s", self._study_id, error)
        except StudyNotFound:
            _logger.info("study %d was deleted", self._study_id)
        except DatabaseUnavailable as error:
            _logger.warning("study %d waits for the database: %s", self._study_id, error)
        except TuneError as error:
            _logger.warning("study %d cannot run: %s", self._study_id, error)
            self._record_problem(str(error))
        except Exception as error:
            # A fault of one study must not end the others; it is shown with the study.
            _logger.exception("study %d failed", self._study_id)
            self._record_problem(f"{type(error).__name__}: {error}")

    def _run_coordinator(self) -> None:
        with translate_unavailable(), self._database.engine.connect() as connection:
            record = study_records.get(connection, self._study_id)
        runs.run_observed(
            self._database,
            record,
            submitted_source(self._database, record),
            {"make_executor": self._make_executor, "check": False, "observer": self._observer},
            self._observer,
            self._interrupt,
            serving=Serving(self._begin, self._back_s),
        )
        with translate_unavailable(), self._database.engine.begin() as connection:
            submissions.succeed(connection, self._study_id)

    def _begin(self, coordinator: Coordinator) -> None:
        """Let the supervisor's grants reach the coordinator, before its first step.

        Waits for the first one: with none, the workers of an earlier server would end.
        """
        self._is_granted.wait(FIRST_GRANT_S)
        self._coordinator = coordinator
        coordinator.grant = self._grant

    def _record_problem(self, problem: str) -> None:
        try:
            with translate_unavailable(), self._database.engine.begin() as connection:
                submissions.fail(connection, self._study_id, problem)
        except DatabaseUnavailable as error:
            _logger.warning("the problem of study %d is not recorded: %s", self._study_id, error)
