"""Accounts, on a database. Permissions are checked by the routes of a server, not here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import tunesvc.db.people.accounts as stored
from tunesvc.champions.watch_specs import family_of
from tunesvc.client.account_operations import TOKEN_DAYS, IssuedSecret, OwnAccount
from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.people import audit_log, personal_data, shares
from tunesvc.db.people.accounts import LINK_LASTS, Role, TokenKind
from tunesvc.db.people.personal_data import PersonalRow
from tunesvc.db.people.shares import PartyKind
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import AccountNotFound, SpecError
from tunesvc.queries.operations import account_rows as rows
from tunesvc.queries.operations.account_rows import MemberRow, ProjectRow, TokenRow, UserRow
from tunesvc.queries.operations.audit_entries import AuditEntry, list_audit
from tunesvc.queries.operations.final_runs import FINAL_STUDY, find_final_study
from tunesvc.queries.rows import RowPage
from tunesvc.queries.studies import get_study_id


class LocalAccounts:
    """See `AccountOperations`.

    Args:
        database: Database of the accounts.
        user: Name of the user of this client.
        among: Studies that the user may view.
        has_entries: True if the caller writes the audit log, as the routes of a server do.
    """

    def __init__(
        self,
        database: Database,
        user: str,
        among: StudyScope,
        *,
        has_entries: bool = False,
    ) -> None:
        self._database = database
        self._user = user
        self._among = among
        self._has_entries = has_entries

    def me(self) -> OwnAccount:
        """Return the user of this client; the owner of the machine needs no account."""
        found = rows.list_users(self._database, self._user)
        if not found:
            return OwnAccount(self._user, True, {})
        return OwnAccount(self._user, found[0].is_admin, found[0].roles)

    def tokens(self) -> tuple[TokenRow, ...]:
        """Return the user's valid tokens and sessions, the newest first."""
        return rows.list_tokens(self._database, self._own_id())

    def create_token(self, label: str = "", days: float | None = TOKEN_DAYS) -> IssuedSecret:
        """Create a token of the user; with None it does not expire."""
        user_id = self._own_id()
        self._record("create token", label)
        with self._database.engine.begin() as connection:
            token = stored.create_token(
                connection,
                user_id,
                TokenKind.TOKEN,
                label,
                None if days is None else _duration(days),
            )
        return IssuedSecret(self._user, token.secret)

    def revoke_token(self, token_id: int) -> None:
        """Revoke a token of the user. Repeatable."""
        user_id = self._own_id()
        self._record("revoke token", str(token_id))
        with self._database.engine.begin() as connection:
            stored.revoke_token(connection, token_id, user_id)

    def users(self) -> tuple[UserRow, ...]:
        """Return all users by name."""
        return rows.list_users(self._database)

    def add_user(self, name: str, *, is_admin: bool = False) -> IssuedSecret:
        """Add a user; return a link that signs in once."""
        self._record("add administrator" if is_admin else "add user", name)
        with self._database.engine.begin() as connection:
            user_id = stored.add_user(connection, name, is_admin=is_admin)
            link = stored.create_token(connection, user_id, TokenKind.LINK, "", LINK_LASTS)
        return IssuedSecret(name, link.secret)

    def make_link(self, name: str) -> IssuedSecret:
        """Make another link for a user."""
        self._record("make link", name)
        with self._database.engine.begin() as connection:
            user_id = stored.find_user(connection, name)
            link = stored.create_token(connection, user_id, TokenKind.LINK, "", LINK_LASTS)
        return IssuedSecret(name, link.secret)

    def disable_user(self, name: str) -> None:
        """Disable a user and revoke its tokens. Repeatable."""
        self._record("disable user", name)
        with self._database.engine.begin() as connection:
            stored.disable_user(connection, name)

    def enable_user(self, name: str) -> None:
        """Enable a user again, who then needs a link. Repeatable."""
        self._record("enable user", name)
        with self._database.engine.begin() as connection:
            stored.enable_user(connection, name)

    def projects(self) -> tuple[ProjectRow, ...]:
        """Return the user's projects by name; all of them for an administrator."""
        return rows.list_projects(self._database, self._among.projects)

    def add_project(self, name: str, weight: float = 1.0) -> str:
        """Add a project; return its name."""
        self._record("add project", name)
        with self._database.engine.begin() as connection:
            stored.add_project(connection, name, weight)
        return name

    def members(self, project: str) -> tuple[MemberRow, ...]:
        """Return the members of a project by name."""
        with self._database.engine.begin() as connection:
            project_id = stored.find_project(connection, project)
        return rows.list_members(self._database, project_id)

    def set_member(self, project: str, user: str, role: Role | None) -> None:
        """Give a user a role in a project, or with None remove the user. Repeatable."""
        self._record(f"set role {role or 'none'}", f"{project}: {user}")
        with self._database.engine.begin() as connection:
            project_id = stored.find_project(connection, project)
            user_id = stored.find_user(connection, user)
            stored.set_member(connection, project_id, user_id, role)

    def move_study(self, study: str, project: str | None) -> None:
        """Put a study into a project, or with None into none. Repeatable.

        Its final runs, and the studies of the family that is named for it, move with it.
        """
        study_id = get_study_id(self._database, study, self._among)
        with self._database.engine.connect() as connection:
            beside = study_records.list_beside(connection, study_id)
        family = [study_id, *(beside[name] for name in beside if family_of(name) == study != name)]
        kinds = [(one, kind) for one in family for kind in FINAL_STUDY]
        finals = [find_final_study(self._database, one, kind) for one, kind in kinds]
        self._record(f"move study to {project or 'no project'}", study)
        with self._database.engine.begin() as connection:
            project_id = None if project is None else stored.find_project(connection, project)
            for moved in (*family, *finals):
                if moved is not None:
                    stored.move_study(connection, moved, project_id)

    def set_share(
        self,
        kind: PartyKind,
        name: str,
        *,
        weight: float | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> dict[str, float]:
        """Change weight and limits of a project or user; return the limits."""
        self._record(f"set share of {kind}", name)
        with self._database.engine.begin() as connection:
            return shares.set_share(connection, kind, name, weight=weight, limits=limits)

    def personal_data(self, name: str) -> tuple[PersonalRow, ...]:
        """Return everything that names a user, without secrets."""
        with self._database.engine.connect() as connection:
            return tuple(personal_data.personal_rows(connection, name))

    def forget_user(self, name: str) -> str:
        """Erase a user from everything; return the pseudonym that stands in its place."""
        self._record("erase user", name)
        with self._database.engine.begin() as connection:
            return personal_data.forget(connection, name)

    def audit(
        self,
        *,
        user: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[AuditEntry]:
        """Return the audit log, of one user or of all, the newest first."""
        found = list_audit(self._database, user_name=user, before=key_of(after), limit=limit + 1)
        return page_of(found, limit, lambda entry: entry.audit_id)

    def _record(self, action: str, subject: str) -> None:
        """Write an entry, before the change: it says what was tried, without an outcome."""
        if not self._has_entries:
            audit_log.begin(self._database, self._user, action, subject)

    def _own_id(self) -> int:
        with self._database.engine.connect() as connection:
            try:
                return stored.find_user(connection, self._user)
            except AccountNotFound:
                text = f"you, {self._user!r}, have no account: `tune user add {self._user}` adds it"
                raise AccountNotFound(text) from None


def _duration(days: float) -> timedelta:
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError):
        raise SpecError(f"a token cannot last {days:g} days: leave the number out") from None
