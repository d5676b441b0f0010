"""Alerts, on a database."""

from __future__ import annotations

from collections.abc import Sequence

from tunesvc.db import alerts
from tunesvc.db.alerts import AlertTarget
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import SpecError
from tunesvc.queries.studies import get_study_id
from tunesvc.service.alert_sender import check_address, send_test


class LocalAlerts:
    """See `AlertOperations`."""

    def __init__(self, database: Database, user: str, among: StudyScope) -> None:
        self._database = database
        self._user = user
        self._among = among

    def targets(self) -> tuple[AlertTarget, ...]:
        """Return the user's targets, oldest first, with their last errors."""
        with self._database.engine.connect() as connection:
            return alerts.list_targets(connection, self._user)

    def add(self, url: str, *, study: str | None = None, kinds: Sequence[str] = ()) -> int:
        """Add a target; return its id."""
        check_address(url)
        study_id = None if study is None else get_study_id(self._database, study, self._among)
        with self._database.engine.begin() as connection:
            return alerts.add_target(connection, self._user, url, study_id=study_id, kinds=kinds)

    def remove(self, target_id: int) -> None:
        """Remove a target of the user. Repeatable."""
        with self._database.engine.begin() as connection:
            alerts.remove_target(connection, self._user, target_id)

    def test(self, target_id: int) -> str:
        """Send a test message to a target of the user; return the error, empty if there is none."""
        with self._database.engine.connect() as connection:
            url = alerts.url_of(connection, self._user, target_id)
        if url is None:
            raise SpecError(f"you have no alert target {target_id}: `tune alert list` lists them")
        return send_test(url)
