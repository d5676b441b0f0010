"""Trials side by side, and studies side by side."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.web.access import Viewer
from tunesvc.web.render import page

router = APIRouter()


@router.get("/compare", name="compare_page")
def compare_page(request: Request, _: Viewer) -> HTMLResponse:
    """Trials of a study, or several studies."""
    return page(request, "compare.html")
