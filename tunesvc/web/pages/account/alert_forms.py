"""The forms of a user's alert targets: add, test, remove. They are on the account's page, and on a
study's configuration page for that study."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.client.local.local_alerts import LocalAlerts
from tunesvc.errors import SpecError
from tunesvc.queries.rows import StudyView
from tunesvc.web.access import AccountUser, User, viewable_studies
from tunesvc.web.pages.account.own_account import account_with
from tunesvc.web.pages.dependencies import viewable

router = APIRouter(prefix="/account/alerts")

TargetId = Annotated[int, Path(ge=0, lt=2**63)]


@router.post("", name="new_alert")
def new_alert(
    request: Request,
    user: AccountUser,
    url: Annotated[str, Form(max_length=2_000)] = "",
    kinds: Annotated[list[str] | None, Form()] = None,
    study_id: Annotated[int | None, Form(ge=0, lt=2**31)] = None,
) -> Response:
    """Add a target, for one study or for all that the user submits."""
    study = None if study_id is None else viewable(request, study_id)
    try:
        name = None if study is None else study.name
        _alerts(request, user).add(url.strip(), study=name, kinds=kinds or ())
    except SpecError as error:  # which names the address without its secrets
        return account_with(request, user, problem=str(error), status=422)
    return _back(request, study)


@router.post("/{target_id}/test", name="test_alert")
def test_alert(request: Request, user: AccountUser, target_id: TargetId) -> HTMLResponse:
    """Send a test message, and render what came of it."""
    error = _alerts(request, user).test(target_id)
    if error:
        return account_with(request, user, problem=error)
    return account_with(request, user, notice="The test message was accepted.")


@router.post("/{target_id}/remove", name="remove_alert")
def remove_alert(
    request: Request,
    user: AccountUser,
    target_id: TargetId,
    study_id: Annotated[int | None, Form(ge=0, lt=2**31)] = None,
) -> Response:
    """Remove a target."""
    _alerts(request, user).remove(target_id)
    return _back(request, None if study_id is None else viewable(request, study_id))


def _alerts(request: Request, user: User) -> LocalAlerts:
    return LocalAlerts(request.app.state.database, user.name, viewable_studies(request, user))


def _back(request: Request, study: StudyView | None) -> Response:
    if study is None:
        at = request.url_for("account_page")
    else:
        at = request.url_for("configuration_page", study_id=study.study_id)
    return RedirectResponse(f"{at.path}#alerts", 303)
