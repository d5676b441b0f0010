"""Who somebody is, and what they may do: the one place where the dashboard decides that.

Pages and actions name what they need, `Depends(may(Right.VIEW))`, and an `Access` says yes or no. On one machine that
is `KeyAccess`: whoever opened the address with its key may do everything. A service with accounts hands in another.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from tunesvc.web.render import page

SESSIONS_MAX = 1_000
"""Browsers that are let in at a time; the oldest has to come with a new key."""


class Permission(StrEnum):
    """What a route needs."""

    VIEW = "view"
    STEER = "steer"
    """Change how a study runs: pause, stop, extend, enqueue, annotate."""
    CREATE = "create"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who was let in."""

    name: str
    """Stands in the record of what was asked of a study."""


class Unauthenticated(Exception):
    """Nobody knows who asks: 401."""


class Forbidden(Exception):
    """Known, but not allowed: 403."""


class Access(Protocol):
    """Decides."""

    def user(self, request: Request) -> User | None:
        """Who asks; None for somebody unknown."""
        ...

    def allows(self, user: User, right: Permission, study_id: int | None) -> bool:
        """Whether the user may do that, with that study or with the service as a whole."""
        ...

    def viewable(self, user: User) -> Collection[int] | None:
        """Ids of the studies that the user may view, None for all: lists show no others."""
        ...


def may(right: Permission) -> Callable[[Request], User]:
    """A dependency that lets through who has the right, and hands on who that is."""

    def check(request: Request) -> User:
        study = request.path_params.get("study_id")
        return allowed(
            request,
            right,
            int(study) if study is not None and str(study).isdecimal() else None,
        )

    return check


def allowed(request: Request, right: Permission, study_id: int | None) -> User:
    """Who asks, where they have the right.

    Raises:
        NotLetIn: nobody knows who asks.
        NotAllowed: they do not have it.
    """
    access: Access = request.app.state.access
    user = access.user(request)
    if user is None:
        raise Unauthenticated
    if not access.allows(user, right, study_id):
        raise Forbidden(f"{user.name} may not {right} this")
    return user


def listed(request: Request, user: User) -> Collection[int] | None:
    """Ids of the studies that a list shows to somebody; None for all."""
    access: Access = request.app.state.access
    return access.viewable(user)


Viewer = Annotated[User, Depends(may(Permission.VIEW))]
Steerer = Annotated[User, Depends(may(Permission.STEER))]
Creator = Annotated[User, Depends(may(Permission.CREATE))]
Deleter = Annotated[User, Depends(may(Permission.DELETE))]


class KeyAccess:
    """Lets in who brings a key, once per key, and remembers the browser by a cookie. Thread-safe.

    Args:
        name: who that is, for the record.
        cookie: its name. Browsers send a host's cookies to all its ports, so it has to differ between dashboards.
    """

    def __init__(self, name: str, cookie: str) -> None:
        self._name = name
        self._cookie = cookie
        self._lock = threading.Lock()
        self._keys: set[bytes] = set()
        self._sessions: dict[bytes, None] = {}

    def new_key(self) -> str:
        """A key that lets one browser in."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._keys.add(_digest(key))
        return key

    def user(self, request: Request) -> User | None:
        """Whoever has the cookie."""
        session = request.cookies.get(self._cookie)
        if session is None:
            return None
        with self._lock:
            known = _digest(session) in self._sessions
        return User(self._name) if known else None

    def allows(self, user: User, right: Permission, study_id: int | None) -> bool:
        """Everything: the machine is theirs."""
        return True

    def viewable(self, user: User) -> None:
        """All."""

    def router(self) -> APIRouter:
        """Where a key is turned into a cookie."""
        router = APIRouter()
        router.add_api_route("/enter", self.enter, methods=["GET"], include_in_schema=False)
        return router

    def enter(self, request: Request, key: str) -> Response:
        """Take the key, hand out the cookie, and go to the page that was asked for before, or to the first."""
        at = remembered_page(request) or request.url_for("studies_page").path
        # a browser does not send a strict cookie along a redirect that begins on another page, such as a file
        is_elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
        answer = page(request, "entered.html", at=at) if is_elsewhere else RedirectResponse(at, status_code=303)
        session = self._exchange(key)
        if session is not None:
            path = request.url_for("home").path
            answer.set_cookie(
                self._cookie,
                session,
                httponly=True,
                samesite="strict",
                path=path,
            )
        elif self.user(request) is None:  # who is in already may open a used address again
            raise Unauthenticated
        answer.delete_cookie(_page_cookie(request))
        return answer

    def _exchange(self, key: str) -> str | None:
        given = _digest(key)
        with self._lock:
            found = next(
                (known for known in self._keys if hmac.compare_digest(known, given)),
                None,
            )
            if found is None:
                return None
            self._keys.remove(found)
            session = secrets.token_urlsafe(32)
            self._sessions[_digest(session)] = None
            if len(self._sessions) > SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            return session


def remember_page(request: Request, answer: Response) -> None:
    """Have a browser that is not let in keep which page it asked for, for the moment when it is."""
    at = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    answer.set_cookie(
        _page_cookie(request),
        at[:2_000],
        max_age=600,
        httponly=True,
        samesite="lax",
    )


def remembered_page(request: Request) -> str | None:
    """That page; None where there is none, or it is none of ours."""
    at = request.cookies.get(_page_cookie(request), "")
    return at if at.startswith("/") and not at.startswith(("//", "/\\", "/enter")) else None


def _page_cookie(request: Request) -> str:
    return f"tunesvc_page_{request.url.port}"


def _digest(secret: str) -> bytes:
    """What is kept of a secret; looking it up takes no longer for a near miss."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
