"""Accounts decide: who sends a request, and what that user may do in which project.

A program sends its token in `Authorization: Bearer`, a browser its session in a cookie. A request
with that header is judged by it alone: pages of other sites cannot send it, so such a request needs
no further proof that it comes from ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from tunesvc.db.engine.database import Database
from tunesvc.db.people.accounts import (
    SESSION_LASTS,
    Account,
    NewToken,
    Role,
    TokenKind,
    authenticate,
    find_project,
    no_project,
    redeem_link,
)
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.errors import AccountNotFound, Forbidden, SpecError
from tunesvc.queries.operations.account_rows import list_projects
from tunesvc.queries.studies import project_of
from tunesvc.web.access import Permission, User
from tunesvc.web.audit_trail import address_of
from tunesvc.web.rate_limits import RateLimits

_OPERATES = {Permission.VIEW, Permission.STEER, Permission.WORK, Permission.CREATE}
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset(_OPERATES),
    Role.ADMIN: frozenset({*_OPERATES, Permission.DELETE, Permission.MANAGE}),
}
"""Permissions of each role in its project. An administrator of the service may do everything."""


class AccountAccess:
    """Authenticates by tokens in the database, and decides by roles. Thread-safe.

    Args:
        database: Database of the accounts.
        cookie: Name of the cookie of a session.
        limits: Limits on failures and requests.
    """

    entrance = "sign_in.html"

    def __init__(
        self,
        database: Database,
        cookie: str,
        limits: RateLimits | None = None,
    ) -> None:
        self._database = database
        self._cookie = cookie
        self.limits = limits or RateLimits()

    def user(self, request: Request) -> User | None:
        """Return the user of a valid token or session.

        Raises:
            TooManyRequests: too many failures from the address, or requests with the token.
        """
        if not hasattr(request.state, "account"):
            request.state.account = self._account(request)
        account: Account | None = request.state.account
        return None if account is None else User(account.name, account)

    def allows(self, user: User, permission: Permission, study_id: int | None) -> bool:
        """Return True if a role of the user allows it.

        Without a study, a role in any project is enough: the route then names the project to
        `allows_in`.
        """
        account = _account_of(user)
        if account.is_admin or permission is Permission.ACCOUNT:
            return True
        if study_id is not None:
            return self.allows_in(user, permission, project_of(self._database, study_id))
        if permission is Permission.VIEW:
            return True  # an empty list, for a user without any role
        return any(permission in PERMISSIONS[role] for role in account.roles.values())

    def allows_in(self, user: User, permission: Permission, project_id: int | None) -> bool:
        """Return True if the user has a permission in a project; None for no project."""
        account = _account_of(user)
        role = None if project_id is None else account.roles.get(project_id)
        return account.is_admin or (role is not None and permission in PERMISSIONS[role])

    def viewable(self, user: User) -> StudyScope:
        """Return the studies of the user's projects; for an administrator, all."""
        account = _account_of(user)
        return ALL_STUDIES if account.is_admin else StudyScope(frozenset(account.roles))

    def remember(self, request: Request, response: Response, session: NewToken) -> None:
        """Set the cookie of a new session."""
        response.set_cookie(
            self._cookie,
            session.secret,
            max_age=int(SESSION_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path=request.url_for("home").path,
        )

    def forget(self, request: Request, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(self._cookie, path=request.url_for("home").path)

    def find(self, request: Request, secret: str, kind: TokenKind) -> Account | None:
        """Return the account of a valid secret, within the limits.

        Raises:
            TooManyRequests: too many failures from the address, or requests with the secret.
        """
        origin = _origin(request, kind)
        self.limits.check(origin, secret)
        account = authenticate(self._database, secret, kind)
        if account is None:
            self.limits.failed(origin)
        else:
            self.limits.succeeded(secret, account.token_id)
        return account

    def redeem(self, request: Request, secret: str) -> int | None:
        """Use up a link, within the limits; return its user's id, or None if it is not valid.

        Raises:
            TooManyRequests: too many failures from the address.
        """
        origin = _origin(request, TokenKind.LINK)
        self.limits.check(origin, secret)
        with self._database.engine.begin() as connection:
            user_id = redeem_link(connection, secret)
        if user_id is None:
            self.limits.failed(origin)
        return user_id

    def check_origin(self, request: Request) -> None:
        """Refuse another attempt at a provider after too many failures from the address.

        Raises:
            TooManyRequests: there were.
        """
        self.limits.check(_origin(request, TokenKind.LINK), "")

    def count_failure(self, request: Request) -> None:
        """Count a failed attempt at a provider."""
        self.limits.failed(_origin(request, TokenKind.LINK))

    def _account(self, request: Request) -> Account | None:
        header = request.headers.get("authorization")
        if header is None:
            session = request.cookies.get(self._cookie)
            if not session or self.limits.is_blocked(_origin(request, TokenKind.SESSION), session):
                return None  # to sign in, not to wait: an open page repeats its requests
            return self.find(request, session, TokenKind.SESSION)
        scheme, _, secret = header.partition(" ")
        is_bearer = scheme.lower() == "bearer"
        return self.find(request, secret.strip(), TokenKind.TOKEN) if is_bearer else None


def authorize_project(
    request: Request,
    user: User,
    permission: Permission,
    name: str,
) -> int:
    """Return the id of a project in which the user has a permission.

    Raises:
        AccountNotFound: the user may not see the project, which may exist or not.
        Forbidden: the user does not have the permission.
    """
    with request.app.state.database.engine.connect() as connection:
        project_id = find_project(connection, name)
    access = request.app.state.access
    if not isinstance(access, AccountAccess):
        return project_id
    if not access.allows_in(user, Permission.VIEW, project_id):
        raise AccountNotFound(no_project(name))
    if not access.allows_in(user, permission, project_id):
        raise Forbidden(f"{user.name} may not {permission} project {name!r}: ask its administrator")
    return project_id


def require_in_project(
    request: Request, user: User, permission: Permission, project_id: int | None
) -> None:
    """Refuse what a user may not do in a project that the user sees; None for no project.

    Raises:
        Forbidden: the user does not have the permission.
    """
    access = request.app.state.access
    if isinstance(access, AccountAccess) and not access.allows_in(user, permission, project_id):
        raise Forbidden(f"{user.name} may not {permission} in this project: ask its administrator")


def project_for_study(request: Request, user: User, name: str | None) -> str | None:
    """Return the project of a new study: the named one, or the only one where the user may create.

    None without accounts, and for an administrator who names none.

    Raises:
        AccountNotFound: the user may not see the project.
        Forbidden: the user may not create studies there.
        SpecError: the user has to name one.
    """
    if name is not None:
        authorize_project(request, user, Permission.CREATE, name)
        return name
    able = projects_for_studies(request, user)
    if len(able) == 1:
        return able[0]
    if user.account is None or user.account.is_admin:
        return None
    raise SpecError("name the project of the study (--project NAME): `tune project list` has yours")


def projects_for_studies(request: Request, user: User) -> list[str]:
    """Return the names of the projects in which the user has a role that may create studies."""
    account = user.account
    if account is None:
        return []
    able = [key for key, role in account.roles.items() if Permission.CREATE in PERMISSIONS[role]]
    rows = list_projects(request.app.state.database, frozenset(able))
    return [row.name for row in rows]


def manageable_projects(request: Request, user: User) -> frozenset[str]:
    """Return the names of the projects whose members the user may change."""
    account = _account_of(user)
    able = [key for key, role in account.roles.items() if Permission.MANAGE in PERMISSIONS[role]]
    ids = None if account.is_admin else frozenset(able)
    return frozenset(row.name for row in list_projects(request.app.state.database, ids))


def _origin(request: Request, kind: TokenKind) -> str:
    """Return what failures are counted by: an expired session does not stop one from signing in."""
    return f"{kind} from {address_of(request)}"


def _account_of(user: User) -> Account:
    if user.account is None:
        raise TypeError("this user does not come from accounts")
    return user.account
