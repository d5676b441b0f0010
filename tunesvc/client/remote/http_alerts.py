"""Alerts, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.client.remote.connection import ServerConnection
from tunesvc.db.alerts import AlertTarget


class HttpAlerts:
    """See `AlertOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def targets(self) -> tuple[AlertTarget, ...]:
        """Return the user's targets, oldest first, with their last errors."""
        return self._connection.get(tuple[AlertTarget, ...], "/alerts")

    def add(self, url: str, *, study: str | None = None, kinds: Sequence[str] = ()) -> int:
        """Add a target; return its id."""
        body = {"url": url, "study": study, "kinds": list(kinds)}
        return self._connection.post(int, "/alerts", body)

    def remove(self, target_id: int) -> None:
        """Remove a target of the user. Repeatable."""
        self._connection.delete(type(None), f"/alerts/{target_id}")

    def test(self, target_id: int) -> str:
        """Send a test message to a target of the user; return the error, empty if there is none."""
        return self._connection.post(str, f"/alerts/{target_id}/test", {})
