"""The stream of changes that every open page listens to."""

from __future__ import annotations

from fastapi import APIRouter, Request

from tunesvc.web.access import Viewer
from tunesvc.web.events import EventStream

router = APIRouter()


@router.get("/events")
def events(request: Request, _: Viewer) -> EventStream:
    """Changes of studies, as server-sent events."""
    return EventStream(request.app.state.hub)
