"""Stores the models of final runs that have ended, in a thread of its own.

It looks at the database: a model is stored also if its client is gone, or its server has died.
"""

from __future__ import annotations

import threading
import time

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable, StudyNotFound, TuneError
from tunesvc.queries.operations.final_models import list_unstored_models
from tunesvc.runtime.finals.served_finals import store_finished
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

LOOK_S = 2.0
"""Interval of looking for final runs that have ended."""
RETRY_S = 5.0
"""Delay of a model that could not be stored; it doubles with each error in a row."""
RETRY_MAX_S = 300.0
AWAY_S = 60.0
"""Interval of looking while the database is away."""


class ModelKeeper:
    """Stores models until it is stopped.

    Several servers may do so at once: both store the same archive.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._delays: dict[int, tuple[float, float]] = {}
        """Delay and time of the next try, of final runs whose models could not be stored."""
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def __enter__(self) -> ModelKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # it may copy a large model: it ends with the process

    def store_due(self) -> int:
        """Store the models of all final runs that have ended; return the number of these runs.

        One that cannot be stored is tried again later, and holds up no other.

        Raises:
            DatabaseUnavailable: the others are stored later.
        """
        with translate_unavailable():
            unstored = list_unstored_models(self._database)
            self._delays = {one: self._delays[one] for one in unstored if one in self._delays}
            now_s = time.monotonic()
            due = [one for one in unstored if one not in self._delays or self._is_due(one, now_s)]
            for final_id in due:
                self._store(final_id)
        return len(due)

    def _is_due(self, final_id: int, now_s: float) -> bool:
        return now_s >= self._delays[final_id][1]

    def _store(self, final_id: int) -> None:
        try:
            store_finished(self._database, final_id)
        except StudyNotFound:
            _logger.info("final run %d was deleted", final_id)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            # An error of one model must not hold up the others; it is recorded with the final run.
            delay_s = self._delays.get(final_id, (RETRY_S / 2, 0.0))[0] * 2
            delay_s = min(delay_s, RETRY_MAX_S)
            self._delays[final_id] = (delay_s, time.monotonic() + delay_s)
            _logger.warning(
                "the model of final run %d is stored later: %s",
                final_id,
                error,
                exc_info=not isinstance(error, TuneError | OSError),
            )

    def _run(self) -> None:
        wait_s = LOOK_S
        while not self._stop.wait(wait_s):
            wait_s = LOOK_S
            try:
                self.store_due()
            except DatabaseUnavailable as error:
                wait_s = AWAY_S
                _logger.warning("models are stored later: %s", error)
            except Exception:
                wait_s = AWAY_S
                _logger.exception("models cannot be looked for")
