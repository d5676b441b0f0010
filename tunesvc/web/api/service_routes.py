"""Routes of all studies together, and of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import Response, StreamingResponse

from tunesvc.client.answers import ChampionHistory, ServerInfo
from tunesvc.db.champions.champion_tenures import Tenure
from tunesvc.db.engine.database import Database
from tunesvc.queries.operations.cluster_view import ClusterView
from tunesvc.queries.rows import RowPage, StudyRow
from tunesvc.queries.studies import get_study_id
from tunesvc.service.cluster_shares import ClusterShares
from tunesvc.web.access import viewable_studies
from tunesvc.web.api.api_requests import After, Limit, Viewing
from tunesvc.web.api.event_streams import study_events
from tunesvc.web.live.sse import STREAMS_MAX, EventStream
from tunesvc.web.live.study_names import NewsReader

router = APIRouter(tags=["service"])

LastEventId = Annotated[str, Header(alias="Last-Event-ID", max_length=100)]


def open_stream(request: Request, events: AsyncGenerator[str]) -> EventStream:
    """Return a stream of events, unless too many are open already."""
    if len(request.app.state.hub) >= STREAMS_MAX:
        problem = f"{STREAMS_MAX} streams are open already: close some"
        raise HTTPException(503, problem, {"Retry-After": "10"})
    return EventStream(events)


@router.get("/server", response_model=ServerInfo)
def get_server(asked: Viewing) -> Response:
    """Return the version of the server, and the user."""
    return asked.answer(asked.client.service.info())


@router.get("/cluster", response_model=ClusterView)
def get_cluster(asked: Viewing) -> Response:
    """Return nodes with their attempts, what waits, and the coordinators."""
    return asked.answer(asked.client.service.cluster())


@router.get("/queue", response_model=RowPage[StudyRow])
def list_queue(asked: Viewing, after: After = "", limit: Limit = 100) -> Response:
    """Return studies that wait for a server, the next one first."""
    return asked.answer(asked.client.service.queue(after=after, limit=limit))


@router.get("/shares", response_model=ClusterShares)
def get_shares(asked: Viewing) -> Response:
    """Return how submitted studies share the cluster, and why one waits."""
    return asked.answer(asked.client.service.shares())


@router.get("/champions", response_model=tuple[Tenure, ...])
def list_champions(asked: Viewing) -> Response:
    """List the tenure of each family's champion, by name."""
    return asked.answer(asked.client.service.champions())


@router.get("/champion", response_model=ChampionHistory)
def get_champion(asked: Viewing, family: Annotated[str, Query(max_length=400)]) -> Response:
    """Return the champions of a family, the newest first, and their announcements."""
    return asked.answer(asked.client.service.champion_history(family))


@router.get("/events", response_class=StreamingResponse)
def stream_events(
    asked: Viewing,
    study: Annotated[str | None, Query(max_length=400)] = None,
    last: LastEventId = "",
) -> Response:
    """Stream changes of one study or of all, as server-sent events.

    `changed` has the names of studies; `gap` says that earlier changes may be missing. A client
    continues with `Last-Event-ID`.
    """
    request = asked.request
    database: Database = request.app.state.database
    among = viewable_studies(request, asked.user)
    only = None if study is None else get_study_id(database, study, among)

    reader = NewsReader(request.app.state.study_names, asked.user.account, among, only)
    return open_stream(request, study_events(request.app.state.hub, reader, last))
