"""Signing in with a token or a link that works once, and signing out.

Opening a link only shows the form with its secret: programs that look ahead at links in messages
must not use them up.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from tunesvc.db.people.accounts import TokenKind, create_session, prefix_of, revoke_token
from tunesvc.web.access import AccountUser, forget_page, remembered_page
from tunesvc.web.account_access import AccountAccess
from tunesvc.web.audit_trail import record_sign_in
from tunesvc.web.render import page

router = APIRouter()

Secret = Annotated[str, Form(max_length=400)]
_WRONG = "This is not a valid token, or the link was used already."


@router.get("/enter", name="enter_page")
def enter_page(request: Request, key: Annotated[str, Query(max_length=400)] = "") -> Response:
    """Render the form for a token, or for the secret of a link."""
    return page(request, "sign_in.html", secret=key, problem="")


@router.post("/enter", name="enter")
def enter(request: Request, secret: Secret = "") -> Response:
    """Start a session, and open the page requested before, or the first one."""
    access: AccountAccess = request.app.state.access
    user_id = _user_of(request, access, secret.strip())
    if user_id is None:
        record_sign_in(request, "", 401)
        return page(request, "sign_in.html", 401, secret="", problem=_WRONG)
    return start_session(request, user_id)


def start_session(
    request: Request,
    user_id: int,
    *,
    comes_from_elsewhere: bool = False,
) -> Response:
    """Start a session in the browser, and open the page requested before, or the first one."""
    access: AccountAccess = request.app.state.access
    with request.app.state.database.engine.begin() as connection:
        name, session = create_session(connection, user_id)
    record_sign_in(request, name, 303, session.token_id)
    at = remembered_page(request) or request.url_for("studies_page").path
    response: Response = RedirectResponse(at, status_code=303)
    if comes_from_elsewhere:
        # Browsers do not send a strict cookie on a redirect that starts on another site's page.
        response = page(request, "entered.html", at=at)
    access.remember(request, response, session)
    forget_page(request, response)
    return response


@router.post("/leave", name="leave")
def leave(request: Request, user: AccountUser) -> Response:
    """End the session, and open the form."""
    access: AccountAccess = request.app.state.access
    if user.account is not None:
        with request.app.state.database.engine.begin() as connection:
            revoke_token(connection, user.account.token_id)
    response = RedirectResponse(request.url_for("enter_page").path, status_code=303)
    access.forget(request, response)
    return response


def _user_of(request: Request, access: AccountAccess, secret: str) -> int | None:
    """Return the id of the user of a token or a link; None if it is not valid."""
    if secret.startswith(prefix_of(TokenKind.LINK)):
        return access.redeem(request, secret)
    account = access.find(request, secret, TokenKind.TOKEN)
    return None if account is None else account.user_id
