"""The client of a server's API. Exported as `tunesvc.Client`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tunesvc.client.account_operations import IssuedSecret
from tunesvc.client.remote.connection import RETRY_S, ServerConnection

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


class Client:
    """Client of a tunesvc server: `Client("https://tune.example.org", token)`. Thread-safe.

    Its groups of operations are `studies`, `trials`, `insights`, `commands`,
    `submissions` and `service`. It is a context manager that closes its connections.

    Args:
        url: Address of the server.
        token: Token of the user; None for none.
        retry_s: How long a request is tried again while the server cannot be reached.

    Raises:
        ServerError: the address is not one of a server.
    """

    def __init__(self, url: str, token: str | None = None, *, retry_s: float = RETRY_S) -> None:
        self._connection = ServerConnection(url, token, retry_s)

    def __repr__(self) -> str:
        return f"<Client {self._connection.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Repeatable."""
        self._connection.close()

    @cached_property
    def studies(self) -> StudyOperations:
        """Studies as a whole."""
        from tunesvc.client.remote.http_studies import HttpStudies

        return HttpStudies(self._connection)

    @cached_property
    def trials(self) -> TrialOperations:
        """Trials of a study."""
        from tunesvc.client.remote.http_trials import HttpTrials

        return HttpTrials(self._connection)

    def redeem_link(self, label: str) -> IssuedSecret:
        """Exchange a link, whose secret is this client's token, for a token.

        Raises:
            Unauthenticated: the link is not valid, or was used.
        """
        return self._connection.post(IssuedSecret, "/links/redeem", {"label": label})

    @cached_property
    def insights(self) -> InsightOperations:
        """Results of a study, and their reasons."""
        from tunesvc.client.remote.http_insights import HttpInsights

        return HttpInsights(self._connection)

    @cached_property
    def service(self) -> ServiceOperations:
        """All studies together."""
        from tunesvc.client.remote.http_service import HttpService

        return HttpService(self._connection)

    @cached_property
    def alerts(self) -> AlertOperations:
        """The user's own alert targets."""
        from tunesvc.client.remote.http_alerts import HttpAlerts

        return HttpAlerts(self._connection)

    @cached_property
    def accounts(self) -> AccountOperations:
        """Users, projects, tokens and the audit log."""
        from tunesvc.client.remote.http_accounts import HttpAccounts

        return HttpAccounts(self._connection)

    @cached_property
    def commands(self) -> CommandOperations:
        """Requests to a study."""
        from tunesvc.client.remote.http_commands import HttpCommands

        return HttpCommands(self._connection)

    @cached_property
    def submissions(self) -> SubmissionOperations:
        """Studies that are handed to servers."""
        from tunesvc.client.remote.http_submissions import HttpSubmissions

        return HttpSubmissions(self._connection)
