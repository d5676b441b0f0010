"""Ends open streams when their account changes: revoked, expired, disabled, or with other roles.

One thread per server looks once a second, with one query for all streams. A client that still may
read connects again, and gets what its roles are now.
"""

from __future__ import annotations

import threading

from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.people.accounts import valid_accounts
from tunesvc.errors import DatabaseUnavailable
from tunesvc.web.live.sse import EventHub

LOOK_S = 1.0


class StreamGuard:
    """Looks at the accounts of a hub's streams. `start` repeats it in a thread."""

    def __init__(self, database: Database, hub: EventHub) -> None:
        self._database = database
        self._hub = hub
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tunesvc-streams", daemon=True)

    def start(self) -> None:
        """Look until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Repeatable."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_S + 1)

    def look(self) -> None:
        """End the streams of accounts that have changed.

        Raises:
            DatabaseUnavailable: the accounts cannot be read.
        """
        opened = self._hub.accounts()
        if not opened:
            return
        with translate_unavailable():
            now = valid_accounts(self._database, {account.token_id for account in opened})
        self._hub.end([one for one in opened if now.get(one.token_id) != one])

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except DatabaseUnavailable:
                continue  # nothing is read meanwhile either
