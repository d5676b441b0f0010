"""The page of the user's own account: roles, tokens and the browsers where it is signed in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.client.account_operations import TOKEN_DAYS, IssuedSecret
from tunesvc.client.local.local_accounts import LocalAccounts
from tunesvc.client.local.local_alerts import LocalAlerts
from tunesvc.db.schema.service_tables import ALERTS
from tunesvc.web.access import AccountUser, User, viewable_studies
from tunesvc.web.render import page

router = APIRouter(prefix="/account")

LASTS = {"30": "30 days", f"{TOKEN_DAYS:g}": "90 days", "365": "a year", "": "for ever"}


@router.get("", name="account_page")
def account_page(request: Request, user: AccountUser) -> HTMLResponse:
    """Render the page."""
    return account_with(request, user)


@router.post("/tokens", name="new_token")
def new_token(
    request: Request,
    user: AccountUser,
    label: Annotated[str, Form(max_length=400)] = "",
    days: Annotated[str, Form(pattern="^[0-9]{0,5}$")] = f"{TOKEN_DAYS:g}",
) -> HTMLResponse:
    """Create a token, and render the page with its secret, once."""
    issued = operations(request, user).create_token(label.strip(), float(days) if days else None)
    return account_with(request, user, issued)


@router.post("/tokens/{token_id}/revoke", name="revoke_token")
def revoke_token(
    request: Request,
    user: AccountUser,
    token_id: Annotated[int, Path(ge=0, lt=2**63)],
) -> Response:
    """Revoke a token or session."""
    operations(request, user).revoke_token(token_id)
    return RedirectResponse(request.url_for("account_page").path, 303)


def operations(request: Request, user: User) -> LocalAccounts:
    """Return the operations for a user whose permission was checked."""
    database = request.app.state.database
    among = viewable_studies(request, user)
    return LocalAccounts(database, user.name, among, has_entries=True)


def account_with(
    request: Request,
    user: User,
    issued: IssuedSecret | None = None,
    *,
    problem: str = "",
    notice: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Render the page, with a new secret or with what came of an alert's form."""
    accounts = operations(request, user)
    return page(
        request,
        "account.html",
        status,
        me=accounts.me(),
        tokens=accounts.tokens(),
        issued=issued,
        current=user.account.token_id if user.account else None,
        lasts=LASTS,
        targets=LocalAlerts(
            request.app.state.database, user.name, viewable_studies(request, user)
        ).targets(),
        alert_kinds=ALERTS,
        problem=problem,
        notice=notice,
    )
