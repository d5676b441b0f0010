"""The cluster page: nodes with their use, shares of studies, the queue with reasons, and the
coordinators."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.queries.operations.cluster_view import get_cluster
from tunesvc.service.cluster_shares import get_shares
from tunesvc.web.access import Viewer, viewable_studies
from tunesvc.web.render import page, wants_fragment

router = APIRouter()


@router.get("/cluster", name="cluster_page")
def cluster_page(request: Request, user: Viewer) -> HTMLResponse:
    """Render the page; for htmx, only its content."""
    template = "cluster_now.html" if wants_fragment(request) else "cluster.html"
    database, among = request.app.state.database, viewable_studies(request, user)
    return page(
        request,
        template,
        cluster=get_cluster(database, among),
        shares=get_shares(database, among).studies,
    )
