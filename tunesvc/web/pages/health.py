"""Whether a study is well: what its checks found, what to do about it, and what they looked at in vain."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc import insights
from tunesvc.insights.health import health
from tunesvc.web.pages.asked import AskedStudy
from tunesvc.web.render import page, wants_fragment

router = APIRouter()


@router.get("/studies/{study_id}/health", name="health_page")
def health_page(request: Request, study: AskedStudy) -> HTMLResponse:
    """The page, or the checks alone when htmx asks for them."""
    database, kept = request.app.state.database, request.app.state.kept
    stamp = insights.fingerprint(database, study.study_id)
    examined = kept.get(("health", study.study_id), stamp, lambda _: health(database, study))
    template = "health_checks.html" if wants_fragment(request) else "health.html"
    return page(request, template, study=study, health=examined.value)
