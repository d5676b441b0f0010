"""Operations of every client on accounts: `client.accounts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tunesvc.db.people.accounts import Role
from tunesvc.db.people.personal_data import PersonalRow
from tunesvc.db.people.shares import PartyKind
from tunesvc.queries.operations.account_rows import MemberRow, ProjectRow, TokenRow, UserRow
from tunesvc.queries.operations.audit_entries import AuditEntry
from tunesvc.queries.rows import RowPage

TOKEN_DAYS = 90.0


@dataclass(frozen=True, slots=True)
class OwnAccount:
    """The user of a client."""

    name: str
    is_admin: bool
    """May do everything, in every project."""
    roles: Mapping[str, str]
    """By project."""


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """A token or link that was just created. Its secret is shown only now."""

    user: str
    secret: str = field(repr=False)


class AccountOperations(Protocol):
    """Users, projects, tokens and the audit log.

    Without a server they act on the database as an administrator. Every method may raise
    `Forbidden`, and `AccountNotFound` for a name that does not exist or that the user may not see.
    """

    def me(self) -> OwnAccount:
        """Return the user of this client."""
        ...

    def tokens(self) -> tuple[TokenRow, ...]:
        """Return the user's valid tokens and sessions, the newest first."""
        ...

    def create_token(self, label: str = "", days: float | None = TOKEN_DAYS) -> IssuedSecret:
        """Create a token of the user; with None it does not expire.

        Raises:
            SpecError: the label is too long, or the number of days is not positive.
        """
        ...

    def revoke_token(self, token_id: int) -> None:
        """Revoke a token of the user. Repeatable."""
        ...

    def users(self) -> tuple[UserRow, ...]:
        """Return all users by name."""
        ...

    def add_user(self, name: str, *, is_admin: bool = False) -> IssuedSecret:
        """Add a user; return a link that signs in once.

        Raises:
            AccountExists: the name is taken.
            SpecError: it is not a user name.
        """
        ...

    def make_link(self, name: str) -> IssuedSecret:
        """Make another link for a user."""
        ...

    def disable_user(self, name: str) -> None:
        """Disable a user and revoke its tokens. Repeatable.

        Raises:
            SpecError: it is the last administrator.
        """
        ...

    def enable_user(self, name: str) -> None:
        """Enable a user again, who then needs a link. Repeatable."""
        ...

    def projects(self) -> tuple[ProjectRow, ...]:
        """Return the user's projects by name; all of them for an administrator."""
        ...

    def add_project(self, name: str, weight: float = 1.0) -> str:
        """Add a project; return its name.

        Raises:
            AccountExists: the name is taken.
            SpecError: it is not a project name.
        """
        ...

    def members(self, project: str) -> tuple[MemberRow, ...]:
        """Return the members of a project by name."""
        ...

    def set_member(self, project: str, user: str, role: Role | None) -> None:
        """Give a user a role in a project, or with None remove the user. Repeatable."""
        ...

    def move_study(self, study: str, project: str | None) -> None:
        """Put a study into a project, or with None into none. Repeatable.

        Raises:
            StudyNotFound: there is no such study.
        """
        ...

    def set_share(
        self,
        kind: PartyKind,
        name: str,
        *,
        weight: float | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> dict[str, float]:
        """Change weight and limits of a project or user; return the limits. See `db.people.shares`.

        Raises:
            SpecError: a limit does not exist, or a value cannot be one.
        """
        ...

    def personal_data(self, name: str) -> tuple[PersonalRow, ...]:
        """Return everything that names a user, without secrets."""
        ...

    def forget_user(self, name: str) -> str:
        """Erase a user from everything; return the pseudonym that stands in its place.

        Raises:
            AccountNotFound: nothing names this user.
        """
        ...

    def audit(
        self,
        *,
        user: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AuditEntry]:
        """Return the audit log, of one user or of all, the newest first."""
        ...
