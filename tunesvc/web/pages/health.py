"""Whether a study is well: what its checks found, what to do about it, and what they looked at in vain."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.insights.health import health
from tunesvc.web.pages.asked import AskedStudy
from tunesvc.web.render import page, wants_fragment

router = APIRouter()


@router.get("/studies/{study_id}/health", name="health_page")
def health_page(request: Request, study: AskedStudy) -> HTMLResponse:
    """The page, or the checks alone when htmx asks for them."""
    template = "health_checks.html" if wants_fragment(request) else "health.html"
    return page(request, template, study=study, health=health(request.app.state.database, study))
