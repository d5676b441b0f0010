"""The client on an open database. Each group is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope

if TYPE_CHECKING:
    from tunesvc.client.account_operations import AccountOperations
    from tunesvc.client.alert_operations import AlertOperations
    from tunesvc.client.interface import (
        CommandOperations,
        InsightOperations,
        ServiceOperations,
        StudyOperations,
        SubmissionOperations,
        TrialOperations,
    )


class LocalClient:
    """Client of one user on a database. Thread-safe.

    Args:
        database: Database of the studies; the caller closes it.
        user: Name of the user in the log of requests.
        among: Studies that the user may view.
        on_command: Called with connection and command id in the transaction that records a request.
    """

    def __init__(
        self,
        database: Database,
        user: str,
        among: StudyScope = ALL_STUDIES,
        on_command: Callable[[Any, int], None] = lambda connection, command_id: None,
    ) -> None:
        self._database = database
        self._user = user
        self._among = among
        self._on_command = on_command

    @cached_property
    def studies(self) -> StudyOperations:
        """Studies as a whole."""
        from tunesvc.client.local.local_studies import LocalStudies

        return LocalStudies(self._database, self._user, self._among)

    @cached_property
    def trials(self) -> TrialOperations:
        """Trials of a study."""
        from tunesvc.client.local.local_trials import LocalTrials

        return LocalTrials(self._database, self._among)

    @cached_property
    def insights(self) -> InsightOperations:
        """Results of a study, and their reasons."""
        from tunesvc.client.local.local_insights import LocalInsights

        return LocalInsights(self._database, self._among)

    @cached_property
    def service(self) -> ServiceOperations:
        """All studies together."""
        from tunesvc.client.local.local_service import LocalService

        return LocalService(self._database, self._user, self._among)

    @cached_property
    def alerts(self) -> AlertOperations:
        """The user's own alert targets."""
        from tunesvc.client.local.local_alerts import LocalAlerts

        return LocalAlerts(self._database, self._user, self._among)

    @cached_property
    def accounts(self) -> AccountOperations:
        """Users, projects, tokens and the audit log."""
        from tunesvc.client.local.local_accounts import LocalAccounts

        return LocalAccounts(self._database, self._user, self._among)

    @cached_property
    def commands(self) -> CommandOperations:
        """Requests to a study."""
        from tunesvc.client.local.local_commands import LocalCommands

        return LocalCommands(self._database, self._user, self._among, self._on_command)

    @cached_property
    def submissions(self) -> SubmissionOperations:
        """Studies that are handed to servers."""
        from tunesvc.client.local.local_submissions import LocalSubmissions

        return LocalSubmissions(self._database, self._user, self._among)
