"""The live head of every page of a study: its state, actions and labels."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.web.pages.dependencies import AskedStudy
from tunesvc.web.render import page

router = APIRouter()


@router.get("/studies/{study_id}/standing", name="standing")
def standing(request: Request, study: AskedStudy) -> HTMLResponse:
    """Render the head of the page."""
    return page(request, "standing.html", study=study)
