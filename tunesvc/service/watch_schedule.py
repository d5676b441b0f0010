"""Looks at the families that servers watch, when their time has come.

Several servers may do so at once: the lock of a family lets one of them look. A look that a server
does not end is continued by another one, from what is in the database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import sqlalchemy as sa

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
DELIVERIES_MAX = 4
"""Most families at a time whose hooks are called between looks."""
LOOK_MAX_S = 12 * 3600.0
"""Longest time of a look, without that of studies that it waits for."""
_STOP_S = 5.0


class _BegunLook:
    """A look, or deliveries without one, in a thread that can be interrupted on its own."""

    def __init__(self, database: Database, family: str, *, looks: bool) -> None:
        self.looks = looks
        self._look = ServedLook(database, family, threading.Event())
        self._begun_s = time.monotonic()
        self._run = self._look.run if looks else self._look.deliver
        name = f"watch-{family}"
        self._thread = threading.Thread(target=self._log_errors, args=[family], name=name)
        self._thread.daemon = True
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """True until its thread has ended."""
        return self._thread.is_alive()

    @property
    def takes_place(self) -> bool:
        """True if it counts among those at a time: one that has to end holds up no others."""
        return self.is_alive and not self._look.interrupt.is_set()

    def end(self) -> None:
        """Interrupt it."""
        self._look.interrupt.set()

    def end_if_needless(self, connection: sa.Connection) -> None:
        """Interrupt it if its watch was replaced or removed, or if it takes too long."""
        watch = self._look.watch
        if watch is not None and not served_watches.is_current(connection, watch):
            self.end()
        elif time.monotonic() - self._begun_s > LOOK_MAX_S:
            self._look.problem = f"the look took longer than {LOOK_MAX_S / 3600:g} hours"
            self.end()

    def join(self) -> None:
        """Wait for its end, not for long."""
        self._thread.join(_STOP_S)

    def _log_errors(self, family: str) -> None:
        try:
            self._run()
        except DatabaseUnavailable as error:
            _logger.warning("the look at %s waits for the database: %s", family, error)
        except Exception:
            _logger.exception("the look at %s failed; it is tried again", family)
            self._look.interrupt.wait(10 * CHECK_S)


class WatchSchedule:
    """Makes the looks that are due, each in a thread, until it is stopped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._looks: dict[str, _BegunLook] = {}

    def __enter__(self) -> WatchSchedule:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        looks = list(self._looks.values())
        for look in looks:
            look.end()
        for look in looks:
            look.join()

    def begin_due(self) -> None:
        """Begin the looks and deliveries that are due, as far as there is room.

        Ends looks at watches that were replaced or removed, and those that take too long.

        Raises:
            DatabaseUnavailable: they begin later.
        """
        self._looks = {name: look for name, look in self._looks.items() if look.is_alive}
        with translate_unavailable(), self._database.engine.connect() as connection:
            for look in self._looks.values():
                look.end_if_needless(connection)
            due = served_watches.list_due(connection)
            undelivered = promotion_deliveries.list_due_families(connection)
        self._begin(due, LOOKS_MAX, looks=True)
        self._begin(undelivered, DELIVERIES_MAX, looks=False)

    def _begin(self, families: Sequence[str], most: int, *, looks: bool) -> None:
        for family in families:
            begun = [one for one in self._looks.values() if one.looks is looks and one.takes_place]
            if len(begun) >= most or self._stop.is_set():
                return
            if family not in self._looks:
                self._looks[family] = _BegunLook(self._database, family, looks=looks)

    def _run(self) -> None:
        while not self._stop.wait(CHECK_S):
            try:
                self.begin_due()
            except DatabaseUnavailable as error:
                _logger.warning("watches wait for the database: %s", error)
            except Exception:
                _logger.exception("watches failed; they are tried again")
                self._stop.wait(10 * CHECK_S)
