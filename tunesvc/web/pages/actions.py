"""Actions on a study and its trials: forms that explain the consequences, and their requests.

Each form is a page of its own, which scripts show as a dialog. A dashboard cannot run a study,
which needs a process with the study's code. So `resume` shows the command for it, and only cancels
a pause that is not complete yet.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.champions.promotion import carry_out
from tunesvc.errors import SpecError
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.runtime import study_requests
from tunesvc.web.access import Deleter, Steerer, Viewer, viewable_studies
from tunesvc.web.available_actions import unavailable_actions
from tunesvc.web.forms import Fields, FormQuestion, request_of
from tunesvc.web.pages.dependencies import AskedStudy, trial_of
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

Number = Annotated[int | None, Query(ge=0, lt=2**31)]


@router.get("/studies/{study_id}/ask/{ask}", name="ask_form")
def ask_form(
    request: Request,
    _: Steerer,
    study: AskedStudy,
    ask: FormQuestion,
    trial: Number = None,
) -> HTMLResponse:
    """Render a form; for htmx, as a dialog's content."""
    if ask.needs_trial and trial is None:
        raise SpecError("this is about a trial: say which")
    detail = None if trial is None else trial_of(request, study, trial)
    row = None if detail is None else detail.row
    why_not = unavailable_actions(study, row).get(ask, "")
    return _form(request, study, f"ask_{ask}.html", detail, why_not)


@router.post("/studies/{study_id}/ask/{ask}", name="ask")
def ask(
    request: Request,
    user: Steerer,
    study: AskedStudy,
    ask: FormQuestion,
    fields: Annotated[Fields, Form()],
) -> Response:
    """Make the request; show the answer as a message, or in the list of the study's requests."""
    database = request.app.state.database
    if ask is FormQuestion.NOTE:
        text = fields.text.replace("\r\n", "\n").strip()
        study_requests.note(
            database,
            study.study_id,
            fields.trial,
            text,
            asked_by=user.name,
        )
        answer = "The note is saved." if text else "The note is removed."
    elif ask is FormQuestion.TAG:
        add = [tag.strip() for tag in fields.text.split(",") if tag.strip()]
        tags = study_requests.tag(
            database,
            study.study_id,
            fields.trial,
            add=add,
            remove=fields.remove,
            asked_by=user.name,
        )
        answer = f"Tags: {', '.join(tags)}" if tags else "All tags are removed."
    elif ask is FormQuestion.ROLLBACK:
        scope = viewable_studies(request, user)
        reason = {"reason": fields.text.strip()}
        answer = carry_out(database, study, "rollback", reason, user.name, scope)
    else:
        kind, payload = request_of(ask, fields, study)
        answer = study_requests.request(
            database,
            study.study_id,
            kind,
            payload,
            user.name,
        )
    if wants_fragment(request):
        return _message(answer)
    return RedirectResponse(
        request.url_for("requests_page", study_id=study.study_id),
        status_code=303,
    )


@router.get("/studies/{study_id}/delete", name="delete_form")
def delete_form(request: Request, _: Deleter, study: AskedStudy) -> HTMLResponse:
    """Render the consequences, and a field for the study's name."""
    why_not = unavailable_actions(study).get("delete", "")
    return _form(request, study, "ask_delete.html", None, why_not)


@router.post("/studies/{study_id}/delete", name="delete")
def delete(
    request: Request,
    user: Deleter,
    study: AskedStudy,
    name: Annotated[str, Form(max_length=400)] = "",
) -> Response:
    """Delete the study, if its name was typed."""
    if name != study.name:
        raise SpecError(
            f"nothing is deleted: type the study's name, {study.name!r}, to delete it",
        )
    study_requests.remove(request.app.state.database, study.study_id, user.name)
    home = str(request.url_for("studies_page").path)
    if wants_fragment(request):
        return Response(status_code=204, headers={"HX-Redirect": home})
    return RedirectResponse(home, status_code=303)


@router.get("/studies/{study_id}/requests", name="requests_page")
def requests_page(
    request: Request,
    _: Viewer,
    study: AskedStudy,
    before: Number = None,
) -> HTMLResponse:
    """Render the log of requests."""
    rows = list_requests(
        request.app.state.database,
        study.study_id,
        before=before,
        limit=SHOWN + 1,
    )
    return page(
        request,
        "requests_table.html" if wants_fragment(request) else "requests.html",
        study=study,
        rows=rows[:SHOWN],
        before=rows[SHOWN - 1].command_id if len(rows) > SHOWN else None,
        is_newest=before is None,
    )


SHOWN = 100


def _form(
    request: Request,
    study: StudyView,
    template: str,
    detail: TrialDetail | None,
    why_not: str,
) -> HTMLResponse:
    alone = not wants_fragment(request)
    row = None if detail is None else detail.row
    return page(request, template, study=study, row=row, why_not=why_not, alone=alone)


def _message(text: str) -> Response:
    """Return a response that shows a message and refreshes the parts that follow the study.

    The events' target is the page, not the form: a refresh may have removed the form by now.
    """
    body = {"target": "body"}
    events = {"message": {"text": text, "kind": "info", **body}, "study-changed": body}
    return Response(status_code=204, headers={"HX-Trigger": json.dumps(events)})
