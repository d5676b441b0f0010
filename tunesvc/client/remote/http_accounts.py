"""Accounts, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from tunesvc.client.account_operations import TOKEN_DAYS, IssuedSecret, OwnAccount
from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.db.people.accounts import Role
from tunesvc.db.people.personal_data import PersonalRow
from tunesvc.db.people.shares import PartyKind
from tunesvc.queries.operations.account_rows import MemberRow, ProjectRow, TokenRow, UserRow
from tunesvc.queries.operations.audit_entries import AuditEntry
from tunesvc.queries.rows import RowPage


class HttpAccounts:
    """See `AccountOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def me(self) -> OwnAccount:
        """Return the user of this client."""
        return self._connection.get(OwnAccount, "/me")

    def tokens(self) -> tuple[TokenRow, ...]:
        """Return the user's valid tokens and sessions, the newest first."""
        return self._connection.get(tuple[TokenRow, ...], "/tokens")

    def create_token(self, label: str = "", days: float | None = TOKEN_DAYS) -> IssuedSecret:
        """Create a token of the user; with None it does not expire."""
        return self._connection.post(IssuedSecret, "/tokens", {"label": label, "days": days})

    def revoke_token(self, token_id: int) -> None:
        """Revoke a token of the user. Repeatable."""
        self._connection.delete(type(None), f"/tokens/{token_id}")

    def users(self) -> tuple[UserRow, ...]:
        """Return all users by name."""
        return self._connection.get(tuple[UserRow, ...], "/users")

    def add_user(self, name: str, *, is_admin: bool = False) -> IssuedSecret:
        """Add a user; return a link that signs in once."""
        body = {"name": name, "is_admin": is_admin}
        return self._connection.post(IssuedSecret, "/users", body)

    def make_link(self, name: str) -> IssuedSecret:
        """Make another link for a user."""
        return self._connection.post(IssuedSecret, f"/users/{_part(name)}/links", {})

    def disable_user(self, name: str) -> None:
        """Disable a user and revoke its tokens. Repeatable."""
        self._connection.patch(type(None), f"/users/{_part(name)}", {"is_disabled": True})

    def enable_user(self, name: str) -> None:
        """Enable a user again, who then needs a link. Repeatable."""
        self._connection.patch(type(None), f"/users/{_part(name)}", {"is_disabled": False})

    def projects(self) -> tuple[ProjectRow, ...]:
        """Return the user's projects by name; all of them for an administrator."""
        return self._connection.get(tuple[ProjectRow, ...], "/projects")

    def add_project(self, name: str, weight: float = 1.0) -> str:
        """Add a project; return its name."""
        return self._connection.post(str, "/projects", {"name": name, "weight": weight})

    def members(self, project: str) -> tuple[MemberRow, ...]:
        """Return the members of a project by name."""
        path = f"/projects/{_part(project)}/members"
        return self._connection.get(tuple[MemberRow, ...], path)

    def set_member(self, project: str, user: str, role: Role | None) -> None:
        """Give a user a role in a project, or with None remove the user. Repeatable."""
        path = f"/projects/{_part(project)}/members/{_part(user)}"
        if role is None:
            self._connection.delete(type(None), path)
        else:
            self._connection.put(type(None), path, {"role": role})

    def move_study(self, study: str, project: str | None) -> None:
        """Put a study into a project, or with None into none. Repeatable."""
        path = study_path(study, "project")
        self._connection.put(type(None), path, {"project": project})

    def set_share(
        self,
        kind: PartyKind,
        name: str,
        *,
        weight: float | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> dict[str, float]:
        """Change weight and limits of a project or user; return the limits."""
        body = {"weight": weight, "limits": limits or {}}
        return self._connection.put(dict[str, float], f"/{kind}s/{_part(name)}/share", body)

    def personal_data(self, name: str) -> tuple[PersonalRow, ...]:
        """Return everything that names a user, without secrets."""
        return self._connection.get(tuple[PersonalRow, ...], f"/users/{_part(name)}/data")

    def forget_user(self, name: str) -> str:
        """Erase a user from everything; return the pseudonym that stands in its place."""
        return self._connection.post(str, f"/users/{_part(name)}/erasure", {"name": name})

    def audit(
        self,
        *,
        user: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AuditEntry]:
        """Return the audit log, of one user or of all, the newest first."""
        return self._connection.get(
            RowPage[AuditEntry], "/audit", user=user, after=after, limit=limit
        )


def _part(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="").replace(".", "%2E")
