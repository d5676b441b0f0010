"""The list of studies: search, filter and sort are in the address."""

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
from tunesvc.web.access import Viewer, listed
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

LOADED = 1_000
"""Studies that are looked at to sort them, the newest; search finds older ones."""
SHOWN = 100


class StudySort(StrEnum):
    """What the list is sorted by."""

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
    """What the address asks for."""

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
    """All studies, or the table alone when htmx asks for it."""
    wanted = StudyListQuery(
        _clean(q),
        state or [],
        [_clean(one) for one in tag or []],
        _clean(owner),
        sort,
        show,
    )
    database, among = request.app.state.database, listed(request, user)
    only: StudyFilter = {
        "search": wanted.search,
        "states": wanted.states,
        "tags": wanted.tags,
        "owner": wanted.owner or None,
        "among": among,
    }
    # the newest come first as they are read: the trials of no others are counted
    found = list_studies(
        database,
        wanted.shown if wanted.sort is StudySort.NEWEST else LOADED,
        **only,
    )
    rows = sorted(found, key=_KEYS[wanted.sort])[: wanted.shown]
    return page(
        request,
        "studies_table.html" if wants_fragment(request) else "studies.html",
        rows=rows,
        found=count_studies(database, **only),
        sparks=sparklines(database, rows),
        wanted=wanted,
        sorts=list(StudySort),
        states=list(StudyStatus),
        gpu_price=request.app.state.gpu_price,
        labels=list_labels(database, among=among),
        is_filtered=bool(wanted.search or wanted.states or wanted.tags or wanted.owner),
    )


def _clean(text: str) -> str:
    """Without what Postgres takes as the end of a text."""
    return text.replace("\0", "")
