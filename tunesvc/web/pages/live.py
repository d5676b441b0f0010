"""The stream of changes to which every open page subscribes."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request

from tunesvc.web.access import Viewer, viewable_studies
from tunesvc.web.live.sse import STREAMS_MAX, EventStream, page_events
from tunesvc.web.live.study_names import NewsReader

router = APIRouter()


@router.get("/events")
def events(request: Request, user: Viewer) -> EventStream:
    """Stream changes of studies as server-sent events."""
    if len(request.app.state.hub) >= STREAMS_MAX:
        raise HTTPException(503, f"{STREAMS_MAX} pages are open already: close some")
    among = viewable_studies(request, user)
    reader = NewsReader(request.app.state.study_names, user.account, among)
    return EventStream(page_events(request.app.state.hub, reader))
