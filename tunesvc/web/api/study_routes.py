"""Routes of studies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView
from tunesvc.web.api.api_requests import After, Limit, Viewing, ViewingStudy

router = APIRouter(tags=["studies"])

Text = Annotated[str, Query(max_length=200)]


@router.get("/studies", response_model=RowPage[StudyRow])
def list_studies(
    asked: Viewing,
    search: Text = "",
    state: Annotated[list[StudyStatus] | None, Query(max_length=20)] = None,
    tag: Annotated[list[str] | None, Query(max_length=50)] = None,
    owner: Annotated[str | None, Query(max_length=200)] = None,
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """List studies, the newest first."""
    page = asked.client.studies.page(
        search=search,
        states=state or (),
        tags=tag or (),
        owner=owner,
        after=after,
        limit=limit,
    )
    return asked.answer(page)


@router.get("/studies/{study}", response_model=StudyView)
def get_study(asked: ViewingStudy) -> Response:
    """Return a study with its spec."""
    return asked.answer(asked.client.studies.get(asked.study))
