"""Notifications of commits: Postgres's NOTIFY with a study's id. They may get lost."""

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
QUEUE = "tunesvc_queue"
"""A study was submitted, queued again, or given another priority."""
AGENT_LAUNCHES = "tunesvc_launches"
"""Launches were offered to the agents of a study."""
AGENT_CALLS = "tunesvc_agent_calls"
"""There is something new for an agent (its id instead of a study's): a stop, or a free slot."""
AGENT_EVENTS = "tunesvc_agent_events"
"""Agents have sent events."""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', :study)"
"""Notifies listeners of a changed study (its id as text) when the transaction commits."""
_NOTIFY = sa.text("SELECT pg_notify(:channel, :study)")


def notify(connection: sa.Connection, study_id: int, channel: str = CHANNEL) -> None:
    """Notify listeners of a changed study, or by its id of something else, when this commits."""
    connection.execute(_NOTIFY, {"channel": channel, "study": str(study_id)})


class Listener:
    """Listens for notifications on a connection of its own.

    Raises:
        sqlalchemy.exc.DBAPIError: no connection can be made.
    """

    def __init__(self, database: Database, *channels: str) -> None:
        # `raw_connection` would raise the driver's errors. The connection is kept, because the
        # driver's connection is closed with it.
        self._connection = database.engine.connect()
        driver = self._connection.connection.driver_connection
        self._driver: BoundedConnection = driver  # type: ignore[assignment]
        self._connection.detach()
        self._driver.autocommit = True
        with self._driver.cursor() as cursor:
            for channel in channels or (CHANNEL,):
                cursor.execute(f"LISTEN {channel}")
        self._wake_reader, self._wake_writer = os.pipe()
        self.is_lost = False

    def wait(self, timeout_s: float) -> set[int]:
        """Return the ids of changed studies; none after `timeout_s` or if the connection broke."""
        return {id_ for _, id_ in self.wait_for_any(timeout_s)}

    def wait_for_any(self, timeout_s: float) -> set[tuple[str, int]]:
        """Return channel and id of each notification; see `wait`."""
        try:
            readers: list[Any] = [self._driver, self._wake_reader]
            ready, _, _ = select.select(readers, [], [], timeout_s)
            if self._driver not in ready:
                return set()
            self._driver.poll()
        except (psycopg2.Error, OSError, ValueError):
            # ValueError: the watchdog has closed the socket.
            self.is_lost = True
            return set()
        notices = [(notice.channel, notice.payload) for notice in self._driver.notifies]
        self._driver.notifies.clear()
        return {(channel, int(payload)) for channel, payload in notices if payload.isdecimal()}

    def wake(self) -> None:
        """Make `wait` return at once, from now on. Callable from any thread."""
        os.write(self._wake_writer, b"!")

    def close(self) -> None:
        """Close the connection. Call it once."""
        with suppress(psycopg2.Error):
            self._driver.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
