"""What every client offers, in groups: `client.studies`, `client.trials`, `client.commands`.

Both implementations return the same values and raise the same errors of `tunesvc.errors`. Studies
are named, trials are numbered. Lists come in pages: `after` of a page is the start of the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tunesvc.client.account_operations import AccountOperations
from tunesvc.queries.rows import (
    RequestRow,
    RowPage,
    StudyRow,
    StudyStatus,
    StudyView,
    TrialDetail,
    TrialRow,
)

if TYPE_CHECKING:
    from tunesvc.artifacts.snapshot import Snapshot
    from tunesvc.runtime.new_submission import NewSubmission

PAGE_MAX = 1_000
"""Most rows of a page."""


class StudyOperations(Protocol):
    """Studies as a whole."""

    def page(
        self,
        *,
        search: str = "",
        states: Sequence[StudyStatus] = (),
        tags: Sequence[str] = (),
        owner: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[StudyRow]:
        """Return studies, the newest first: those that meet all conditions."""
        ...

    def get(self, name: str) -> StudyView:
        """Return a study.

        Raises:
            StudyNotFound: there is no such study.
        """
        ...


class TrialOperations(Protocol):
    """Trials of a study."""

    def page(
        self,
        study: str,
        *,
        where: str = "",
        sort: str = "number",
        after: str = "",
        limit: int = 100,
    ) -> RowPage[TrialRow]:
        """Return trials that match a filter, see `tune trials`, in an order.

        Raises:
            FilterError: the filter cannot be understood.
        """
        ...

    def count(self, study: str, *, where: str = "") -> int:
        """Count the trials that match a filter."""
        ...

    def get(self, study: str, number: int) -> TrialDetail:
        """Return a trial with its attempts, decisions and attributes.

        Raises:
            StudyNotFound: it does not exist.
        """
        ...


class CommandOperations(Protocol):
    """Requests to a study."""

    def send(self, study: str, kind: str, payload: Mapping[str, Any] | None = None) -> str:
        """Send a request, and return its answer; `runtime.study_requests` lists the kinds.

        Raises:
            SpecError: it makes no sense for this study.
        """
        ...

    def page(self, study: str, *, after: str = "", limit: int = 100) -> RowPage[RequestRow]:
        """Return the requests to a study with their answers, the newest first."""
        ...


class SubmissionOperations(Protocol):
    """Studies that are handed to servers."""

    def has_snapshot(self, digest: str) -> bool:
        """Return whether the archive of a folder is stored; if so, it stays for a day."""
        ...

    def put_snapshot(self, snapshot: Snapshot) -> None:
        """Store the archive of a folder. May be repeated.

        Raises:
            ArtifactTooLarge: it is larger than the server takes.
            ArtifactDamaged: it arrived with another digest.
            ArtifactStoreUnavailable: the artifact store does not answer, or is full.
        """
        ...

    def submit(self, new: NewSubmission) -> StudyView:
        """Queue a study for the next server with room, and return it.

        Raises:
            StudyExists: the name is taken.
            SpecError: it cannot be used.
            TuneError: its snapshot is not stored.
        """
        ...


class TuneClient(Protocol):
    """A client of one user."""

    @property
    def accounts(self) -> AccountOperations:
        """Users, projects, tokens and the audit log."""
        ...

    @property
    def studies(self) -> StudyOperations:
        """Studies as a whole."""
        ...

    @property
    def trials(self) -> TrialOperations:
        """Trials of a study."""
        ...

    @property
    def commands(self) -> CommandOperations:
        """Requests to a study."""
        ...

    @property
    def submissions(self) -> SubmissionOperations:
        """Studies that are handed to servers."""
        ...
