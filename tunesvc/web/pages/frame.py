"""What stands on every page of a study and follows it: its state."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.web.pages.asked import AskedStudy
from tunesvc.web.render import page

router = APIRouter()


@router.get("/studies/{study_id}/state")
def study_state(request: Request, study: AskedStudy) -> HTMLResponse:
    """The state, with its reason."""
    return page(request, "study_state.html", study=study)
