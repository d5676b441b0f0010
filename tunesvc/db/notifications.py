"""Notifications of what was committed: Postgres's NOTIFY, with a study's id. Nobody relies on hearing one."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import Any

import psycopg2
import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.timeouts import BoundedConnection

CHANNEL = "tunesvc"
NOTIFY = f"SELECT pg_notify('{CHANNEL}', :study)"
"""Tells listeners, when and if the transaction commits, that a study (its id as text) has changed."""
_NOTIFY = sa.text(NOTIFY)


def notify(connection: sa.Connection, study_id: int) -> None:
    """Tell listeners, when and if this transaction commits, that the study has changed."""
    connection.execute(_NOTIFY, {"study": str(study_id)})


class Listener:
    """A connection of its own that hears notifications.

    Raises:
        sqlalchemy.exc.DBAPIError: no connection can be made.
    """

    def __init__(self, database: Database) -> None:
        # not `raw_connection`, whose errors are the driver's; kept, since the driver's connection is closed with it
        self._connection = database.engine.connect()
        self._driver: BoundedConnection = self._connection.connection.driver_connection  # type: ignore[assignment]
        self._connection.detach()
        self._driver.autocommit = True
        with self._driver.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self._bell, self._ring = os.pipe()
        self.is_lost = False

    def wait(self, timeout_s: float) -> set[int]:
        """Ids of the studies that were told of; empty after `timeout_s`, and when the connection `is_lost`."""
        try:
            readers: list[Any] = [self._driver, self._bell]
            ready, _, _ = select.select(readers, [], [], timeout_s)
            if self._driver not in ready:
                return set()
            self._driver.poll()
        except (psycopg2.Error, OSError, ValueError):  # ValueError: the watchdog has closed the socket
            self.is_lost = True
            return set()
        heard = {int(notice.payload) for notice in self._driver.notifies if notice.payload.isdecimal()}
        self._driver.notifies.clear()
        return heard

    def wake(self) -> None:
        """Have `wait` return at once, from now on. From any thread."""
        os.write(self._ring, b"!")

    def close(self) -> None:
        """Let go. Once."""
        with suppress(psycopg2.Error):
            self._driver.close()
        os.close(self._bell)
        os.close(self._ring)
