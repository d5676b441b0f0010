"""The list of studies. Search, filter and sort order are in the URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from tunesvc.queries.rows import StudyRow, StudyStatus
from tunesvc.queries.sparklines import sparklines
from tunesvc.queries.studies import StudyFilter, count_studies, list_labels, list_studies
from tunesvc.web.access import Viewer, viewable_studies
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

LOADED = 1_000
"""Newest studies that are loaded to be sorted; search finds older ones."""
SHOWN = 100


class StudySort(StrEnum):
    """Sort order of the list."""

    NEWEST = "newest"
    NAME = "name"
    STATE = "state"
    PROGRESS = "progress"
    TRIALS = "trials"
    GPU_HOURS = "gpu_hours"


_KEYS: dict[StudySort, Callable[[StudyRow], Any]] = {
    StudySort.NEWEST: lambda row: -row.study_id,
    StudySort.NAME: lambda row: row.name.casefold(),
    StudySort.STATE: lambda row: (list(StudyStatus).index(row.state), -row.study_id),
    StudySort.PROGRESS: lambda row: -row.fraction,
    StudySort.TRIALS: lambda row: -row.counts.total,
    StudySort.GPU_HOURS: lambda row: -row.gpu_hours,
}


@dataclass(frozen=True, slots=True)
class StudyListQuery:
    """Search, filter and sort order of the URL."""

    search: str
    states: Sequence[StudyStatus]
    tags: Sequence[str]
    owner: str
    sort: StudySort
    shown: int


@router.get("/studies", name="studies_page")
def studies_page(
    request: Request,
    user: Viewer,
    q: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[list[StudyStatus] | None, Query()] = None,
    tag: Annotated[list[str] | None, Query()] = None,
    owner: Annotated[str, Query(max_length=200)] = "",
    sort: StudySort = StudySort.NEWEST,
    show: Annotated[int, Query(ge=1, le=LOADED)] = SHOWN,
) -> HTMLResponse:
    """Render all studies; for htmx, only the table."""
    query = StudyListQuery(
        _clean(q),
        state or [],
        [_clean(one) for one in tag or []],
        _clean(owner),
        sort,
        show,
    )
    database = request.app.state.database
    among = viewable_studies(request, user)
    only: StudyFilter = {
        "search": query.search,
        "states": query.states,
        "tags": query.tags,
        "owner": query.owner or None,
        "among": among,
    }
    # The database returns the newest first; for this order no other studies' trials are counted.
    limit = query.shown if query.sort is StudySort.NEWEST else LOADED
    found = list_studies(database, limit, **only)
    rows = sorted(found, key=_KEYS[query.sort])[: query.shown]
    return page(
        request,
        "studies_table.html" if wants_fragment(request) else "studies.html",
        rows=rows,
        found=count_studies(database, **only),
        sparks=sparklines(database, rows),
        query=query,
        sorts=list(StudySort),
        states=list(StudyStatus),
        gpu_price=request.app.state.gpu_price,
        labels=list_labels(database, among=among),
        is_filtered=bool(query.search or query.states or query.tags or query.owner),
    )


def _clean(text: str) -> str:
    # Postgres does not store NUL characters.
    return text.replace("\0", "")
