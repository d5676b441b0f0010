"""Stores the models of final runs that have ended, in a thread of its own.

It looks at the database: a model is stored also if its client is gone, or its server has died.
"""

from __future__ import annotations

import threading

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import ArtifactStoreUnavailable, DatabaseUnavailable, StudyNotFound
from tunesvc.queries.operations.final_models import list_unstored_models
from tunesvc.runtime.finals.served_finals import store_finished
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

LOOK_S = 2.0
"""Interval of looking for final runs that have ended."""
RETRY_S = 60.0
"""The same after an artifact store did not answer."""


class ModelKeeper:
    """Stores models until it is stopped.

    Several servers may do so at once: both store the same archive.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def __enter__(self) -> ModelKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # it may copy a large model: it ends with the process

    def store_due(self) -> int:
        """Store the models of all final runs that have ended; return the number of these runs.

        Raises:
            ArtifactStoreUnavailable, DatabaseUnavailable: the others are stored later.
        """
        with translate_unavailable():
            due = list_unstored_models(self._database)
            for final_id in due:
                try:
                    store_finished(self._database, final_id)
                except StudyNotFound:
                    _logger.info("final run %d was deleted", final_id)
        return len(due)

    def _run(self) -> None:
        wait_s = LOOK_S
        while not self._stop.wait(wait_s):
            wait_s = LOOK_S
            try:
                self.store_due()
            except (ArtifactStoreUnavailable, DatabaseUnavailable) as error:
                wait_s = RETRY_S
                _logger.warning("models are stored later: %s", error)
            except Exception:
                # A fault with one model must not end the thread.
                wait_s = RETRY_S
                _logger.exception("a model cannot be stored")
