"""Authentication and permissions, in this one place.

Every route declares the permission that it needs, `Depends(may(Permission.VIEW))`, and an `Access`
grants it or not. On one machine that is `KeyAccess`: a browser that opened an address with a key
may do everything. A service has `tunesvc.web.account_access`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Protocol
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from tunesvc.db.people.accounts import Account
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.errors import Forbidden, StudyNotFound, Unauthenticated
from tunesvc.queries.studies import get_study_id
from tunesvc.util.characters import find_invisible
from tunesvc.web import audit_trail
from tunesvc.web.render import page

SESSIONS_MAX = 1_000
"""Most signed-in browsers at a time; the oldest then needs a new key."""


class Permission(StrEnum):
    """Permission that a route needs."""

    VIEW = "view"
    STEER = "steer"
    """Change how a study runs: pause, stop, extend, enqueue, annotate."""
    WORK = "work"
    """Run trials of a study: ask, report and tell."""
    CREATE = "create"
    DELETE = "delete"
    MANAGE = "manage"
    """Change the members of a project."""
    ACCOUNT = "account"
    """Use an own account: see it, create tokens, sign out."""
    ADMINISTER = "administer"
    """Change users and projects, read the audit log."""


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user."""

    name: str
    """Name in the log of a study's requests."""
    account: Account | None = None
    """None for the owner of the machine, who may do everything."""


class Access(Protocol):
    """Authenticates users and checks their permissions."""

    entrance: str
    """Template of the page for a browser that is not signed in."""

    def user(self, request: Request) -> User | None:
        """Return the user of a request; None if not signed in."""
        ...

    def allows(self, user: User, permission: Permission, study_id: int | None) -> bool:
        """Return True if the user has a permission for a study, or for the whole service."""
        ...

    def viewable(self, user: User) -> StudyScope:
        """Return the studies that the user may view."""
        ...


def may(permission: Permission) -> Callable[[Request], User]:
    """Return a dependency that checks a permission and provides the user."""

    def check(request: Request) -> User:
        if "study" in request.path_params:
            return _authorize_named(request, permission)
        study = str(request.path_params.get("study_id"))
        return authorize(
            request,
            permission,
            int(study) if study.isdecimal() else None,
        )

    return check


def authorize(request: Request, permission: Permission, study_id: int | None) -> User:
    """Return the user, if they have the permission.

    Raises:
        Unauthenticated: the user is not signed in.
        StudyNotFound: the user may not view the study, which may exist or not.
        Forbidden: the user does not have the permission.
    """
    access: Access = request.app.state.access
    user = _signed_in(request, access, permission)
    if study_id is not None and not access.allows(user, Permission.VIEW, study_id):
        raise StudyNotFound(f"there is no study {study_id}")
    if study_id is None or permission is not Permission.VIEW:
        _check(access, user, permission, study_id)
    return user


def _check(access: Access, user: User, permission: Permission, study_id: int | None) -> None:
    if not access.allows(user, permission, study_id):
        raise Forbidden(f"{user.name} may not {permission} here: ask an administrator for a role")


def _authorize_named(request: Request, permission: Permission) -> User:
    """Authorize a request whose path has an escaped name; note the name and the id in its state.

    Raises:
        StudyNotFound: there is no such study, or none that the user may view.
    """
    access: Access = request.app.state.access
    user = _signed_in(request, access, permission)
    name = unquote(request.path_params["study"])
    study_id = get_study_id(request.app.state.database, name, access.viewable(user))
    request.state.study, request.state.study_id = name, study_id
    if permission is not Permission.VIEW:
        _check(access, user, permission, study_id)
    return user


_NOT_SIGNED_IN = "this needs a valid token: `tune login URL` stores one"
_UNKNOWN = (
    "the token is not valid here: it is mistyped, expired, revoked or another server's. "
    "`tune login URL` stores another one; TUNE_TOKEN is used before that"
)


def _signed_in(request: Request, access: Access, permission: Permission) -> User:
    """Return the user, and note it for the page and the audit log.

    Work on trials is not audited: it is a study's history, and too much.
    """
    user = access.user(request)
    if user is None:
        raise Unauthenticated(_UNKNOWN if "authorization" in request.headers else _NOT_SIGNED_IN)
    request.state.user = user
    if user.account is not None and permission is not Permission.WORK:
        audit_trail.begin(request, user.name, user.account.token_id)

    @cache
    def can(permission: str, study_id: int | None = None) -> bool:
        """Return True if the page may offer something to the user."""
        return access.allows(user, Permission(permission), study_id)

    request.state.can = can
    return user


def viewable_studies(request: Request, user: User) -> StudyScope:
    """Return the studies that the user may view, for lists."""
    access: Access = request.app.state.access
    return access.viewable(user)


Viewer = Annotated[User, Depends(may(Permission.VIEW))]
Steerer = Annotated[User, Depends(may(Permission.STEER))]
Creator = Annotated[User, Depends(may(Permission.CREATE))]
Deleter = Annotated[User, Depends(may(Permission.DELETE))]
AccountUser = Annotated[User, Depends(may(Permission.ACCOUNT))]
Manager = Annotated[User, Depends(may(Permission.MANAGE))]
Administrator = Annotated[User, Depends(may(Permission.ADMINISTER))]


class KeyAccess:
    """Signs in a browser with a key that works once, and recognises it by a cookie. Thread-safe.

    Args:
        name: Name of the user, for the log of requests.
        cookie: Name of the cookie. Browsers send a host's cookies to all its ports, so each
            dashboard needs its own.
    """

    entrance = "enter.html"

    def __init__(self, name: str, cookie: str) -> None:
        self._name = name
        self._cookie = cookie
        self._lock = threading.Lock()
        self._keys: set[bytes] = set()
        self._sessions: dict[bytes, None] = {}

    def new_key(self) -> str:
        """Return a key that signs in one browser."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._keys.add(_digest(key))
        return key

    def new_token(self) -> str:
        """Return a token for a client of the API, valid as long as the server runs."""
        return self._new_session()

    def user(self, request: Request) -> User | None:
        """Return the user, if the token is valid, or without one the cookie."""
        session = bearer_token(request) or request.cookies.get(self._cookie)
        if session is None:
            return None
        with self._lock:
            known = _digest(session) in self._sessions
        return User(self._name) if known else None

    def allows(self, user: User, permission: Permission, study_id: int | None) -> bool:
        """Return True: the user owns the machine."""
        return True

    def viewable(self, user: User) -> StudyScope:
        """Return all studies."""
        return ALL_STUDIES

    def router(self) -> APIRouter:
        """Return the route that exchanges a key for a cookie."""
        router = APIRouter()
        router.add_api_route(
            "/enter",
            self.enter,
            methods=["GET"],
            include_in_schema=False,
        )
        return router

    def enter(self, request: Request, key: str) -> Response:
        """Exchange the key for a cookie, and open the page requested before, or the first one."""
        at = remembered_page(request) or request.url_for("studies_page").path
        response: Response = RedirectResponse(at, status_code=303)
        if request.headers.get("sec-fetch-site") == "cross-site":
            # Browsers do not send a strict cookie on a redirect that starts on another site's page.
            response = page(request, "entered.html", at=at)
        session = self._exchange(key)
        if session is not None:
            response.set_cookie(
                self._cookie,
                session,
                httponly=True,
                samesite="strict",
                path=request.url_for("home").path,
            )
        elif self.user(request) is None:
            # A browser that is signed in may open a used address again.
            raise Unauthenticated
        forget_page(request, response)
        return response

    def _exchange(self, key: str) -> str | None:
        """Return a new session for a valid key; None otherwise."""
        digest = _digest(key)
        with self._lock:
            matching = [known for known in self._keys if hmac.compare_digest(known, digest)]
            if not matching:
                return None
            self._keys.remove(matching[0])
        return self._new_session()

    def _new_session(self) -> str:
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(session)] = None
            if len(self._sessions) > SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
        return session


def bearer_token(request: Request) -> str | None:
    """Return the token in the header of a request; None without one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def remember_page(request: Request, response: Response) -> None:
    """Store the requested page in a cookie, to open it after signing in."""
    query = f"?{request.url.query}" if request.url.query else ""
    at = request.url.path + query
    response.set_cookie(
        _page_cookie(request),
        at[:2_000],
        max_age=600,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def remembered_page(request: Request) -> str | None:
    """Return the stored page; None without one, or if it is not a page of this dashboard."""
    at = request.cookies.get(_page_cookie(request), "")
    home = request.url_for("home").path
    is_own = at.startswith(home) and not at.startswith(("//", "/\\", f"{home}enter"))
    # Browsers leave out line breaks and tabs, so that another host may begin behind one.
    return at if is_own and find_invisible(at) is None else None


def forget_page(request: Request, response: Response) -> None:
    """Delete the stored page."""
    response.delete_cookie(_page_cookie(request))


def _page_cookie(request: Request) -> str:
    return f"tunesvc_page_{request.url.port}"


def _digest(secret: str) -> bytes:
    # Secrets are stored as digests, so that a look-up takes no longer for a near miss.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
