"""Signing in at the team's provider. A new person gets an account without any role."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from tunesvc.db.people.accounts import find_or_add_user
from tunesvc.errors import Unauthenticated
from tunesvc.web.account_access import AccountAccess
from tunesvc.web.audit_trail import record_sign_in
from tunesvc.web.identity_provider import IdentityProvider, PendingSignIn
from tunesvc.web.pages.account.sign_in import start_session
from tunesvc.web.render import page

router = APIRouter(prefix="/provider")

_COOKIE = "tunesvc_provider"
_ATTEMPT_S = 600


@router.get("/start", name="provider_start")
def provider_start(request: Request) -> Response:
    """Send the browser to the provider."""
    provider: IdentityProvider = request.app.state.provider
    attempt = PendingSignIn.new()
    response = RedirectResponse(provider.address(attempt, _back(request)), 303)
    response.set_cookie(
        _COOKIE,
        attempt.to_text(),
        max_age=_ATTEMPT_S,
        httponly=True,
        samesite="lax",  # the provider's page sends the browser back
        secure=request.url.scheme == "https",
        path=request.url_for("home").path,
    )
    return response


@router.get("/back", name="provider_back")
def provider_back(
    request: Request,
    code: Annotated[str, Query(max_length=4_000)] = "",
    state: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """Start a session for the person whom the provider names."""
    access: AccountAccess = request.app.state.access
    access.check_origin(request)
    try:
        name = _name_of(request, code, state)
        with request.app.state.database.engine.begin() as connection:
            user_id = find_or_add_user(connection, name)
    except Unauthenticated as error:
        access.count_failure(request)
        record_sign_in(request, "", 401)
        response: Response = page(request, "sign_in.html", 401, secret="", problem=str(error))
    else:
        response = start_session(request, user_id, comes_from_elsewhere=True)
    response.delete_cookie(_COOKIE, path=request.url_for("home").path)
    return response


def _name_of(request: Request, code: str, state: str) -> str:
    attempt = PendingSignIn.of_text(request.cookies.get(_COOKIE, ""))
    if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
        raise Unauthenticated("this sign-in was not begun in this browser: sign in again")
    if not code:
        raise Unauthenticated("the provider did not sign you in: sign in again")
    provider: IdentityProvider = request.app.state.provider
    return provider.user_name(attempt, code, _back(request))


def _back(request: Request) -> str:
    return str(request.url_for("provider_back"))
