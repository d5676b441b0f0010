"""The cluster: nodes with what is used of them and by whom, the queue with why each waits, and who runs what."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.queries.operations.cluster_view import get_cluster
from tunesvc.web.access import Viewer, listed
from tunesvc.web.render import page, wants_fragment

router = APIRouter()


@router.get("/cluster", name="cluster_page")
def cluster_page(request: Request, user: Viewer) -> HTMLResponse:
    """The page, or its content alone when htmx asks for it."""
    template = "cluster_now.html" if wants_fragment(request) else "cluster.html"
    return page(
        request,
        template,
        cluster=get_cluster(request.app.state.database, listed(request, user)),
    )
