"""Actions: a form that says what will happen and what is lost, and what it asks for; for a study and its trials.

Each form is a page of its own, which scripts show as a dialog. A dashboard cannot run a study: that takes a process
with the study's code, so `resume` shows the command for it, and takes back a pause that is still under way.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.errors import SpecError, StudyNotFound
from tunesvc.queries.operations.request_log import list_requests
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.trials.trial_table import get_trial
from tunesvc.runtime import study_requests
from tunesvc.web.access import Deleter, Steerer, Viewer
from tunesvc.web.available_actions import unavailable_actions
from tunesvc.web.forms import Fields, FormQuestion, request_of
from tunesvc.web.pages.dependencies import AskedStudy
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
    """A form, as a dialog's content when htmx asks for it."""
    if ask.needs_trial and trial is None:
        raise SpecError("this is about a trial: say which")
    detail = _trial(request, study, trial)
    why_not = unavailable_actions(study, None if detail is None else detail.row).get(
        ask,
        "",
    )
    return _form(request, study, f"ask_{ask}.html", detail, why_not)


@router.post("/studies/{study_id}/ask/{ask}", name="ask")
def ask(
    request: Request,
    user: Steerer,
    study: AskedStudy,
    ask: FormQuestion,
    fields: Annotated[Fields, Form()],
) -> Response:
    """Ask for it; the answer is told as a message, or stands at the top of the study's requests."""
    database = request.app.state.database
    if ask is FormQuestion.NOTE:
        text = fields.text.replace("\r\n", "\n").strip()
        study_requests.note(database, study.study_id, fields.trial, text, who=user.name)
        answer = "The note is kept." if text else "There is no note any more."
    elif ask is FormQuestion.TAG:
        add = [tag.strip() for tag in fields.text.split(",") if tag.strip()]
        tags = study_requests.tag(
            database,
            study.study_id,
            fields.trial,
            add=add,
            remove=fields.remove,
            who=user.name,
        )
        answer = f"Tags: {', '.join(tags)}" if tags else "There are no tags any more."
    else:
        kind, payload = request_of(ask, fields, study)
        answer = study_requests.request(database, study.study_id, kind, payload, user.name)
    if wants_fragment(request):
        return _told(answer)
    return RedirectResponse(
        request.url_for("requests_page", study_id=study.study_id),
        status_code=303,
    )


@router.get("/studies/{study_id}/delete", name="delete_form")
def delete_form(request: Request, _: Deleter, study: AskedStudy) -> HTMLResponse:
    """What is lost, and a field for the study's name."""
    return _form(
        request,
        study,
        "ask_delete.html",
        None,
        unavailable_actions(study).get("delete", ""),
    )


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
    """Who asked what, when, and what came of it."""
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


def _trial(request: Request, study: StudyView, number: int | None) -> TrialDetail | None:
    if number is None:
        return None
    found = get_trial(request.app.state.database, study.study_id, number)
    if found is None:
        raise StudyNotFound(f"study {study.name!r} has no trial {number}")
    return found


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


def _told(answer: str) -> Response:
    """Nothing to show but a message; the page's parts that follow the study look again.

    For the page, not for the form that asked: one that follows the study may have taken that away by now.
    """
    page = {"target": "body"}
    events = {"message": {"text": answer, "kind": "info", **page}, "study-changed": page}
    return Response(status_code=204, headers={"HX-Trigger": json.dumps(events)})
