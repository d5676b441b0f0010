"""Looks at the families that servers watch, when their time has come.

Several servers may do so at once: the lock of a family lets one of them look. A look that a server
does not end is continued by another one, from what is in the database.
"""

from __future__ import annotations

import threading

from tunesvc.db.champions import promotion_deliveries, served_watches
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable
from tunesvc.service.served_look import ServedLook
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

CHECK_S = 2.0
"""Interval of checking for looks that are due."""
LOOKS_MAX = 4
"""Most looks at a time: each may hold a connection to the database for minutes."""
_STOP_S = 5.0


class WatchSchedule:
    """Makes the looks that are due, each in a thread, until it is stopped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._looks: dict[str, threading.Thread] = {}

    def __enter__(self) -> WatchSchedule:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in (self._thread, *self._looks.values()):
            if thread.is_alive():
                thread.join(_STOP_S)

    def begin_due(self) -> None:
        """Begin the looks and deliveries that are due, as far as there is room.

        Raises:
            DatabaseUnavailable: they begin later.
        """
        self._looks = {name: look for name, look in self._looks.items() if look.is_alive()}
        with translate_unavailable(), self._database.engine.connect() as connection:
            due = served_watches.list_due(connection)
            due = [*due, *promotion_deliveries.list_due_families(connection)]
        for family in dict.fromkeys(due):
            if len(self._looks) >= LOOKS_MAX or self._stop.is_set():
                return
            if family not in self._looks:
                name = f"watch-{family}"
                look = threading.Thread(target=self._look, args=[family], name=name, daemon=True)
                self._looks[family] = look
                look.start()

    def _look(self, family: str) -> None:
        try:
            ServedLook(self._database, family, self._stop).run()
        except DatabaseUnavailable as error:
            _logger.warning("the look at %s waits for the database: %s", family, error)
        except Exception:
            _logger.exception("the look at %s failed; it is tried again", family)
            self._stop.wait(10 * CHECK_S)

    def _run(self) -> None:
        while not self._stop.wait(CHECK_S):
            try:
                self.begin_due()
            except DatabaseUnavailable as error:
                _logger.warning("watches wait for the database: %s", error)
            except Exception:
                _logger.exception("watches failed; they are tried again")
                self._stop.wait(10 * CHECK_S)
