"""Routes of trials."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from tunesvc.queries.rows import RowPage, TrialDetail, TrialRow
from tunesvc.web.api.api_requests import After, Limit, Number, ViewingStudy

router = APIRouter(prefix="/studies/{study}/trials", tags=["trials"])

Where = Annotated[
    str,
    Query(max_length=4_000, description="Filter, such as `lr < 0.01 and state == complete`."),
]
SortBy = Annotated[
    str,
    Query(max_length=400, description="Name to sort by; `-NAME` begins with the largest."),
]


@router.get("", response_model=RowPage[TrialRow])
def list_trials(
    asked: ViewingStudy,
    where: Where = "",
    sort: SortBy = "number",
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """List the trials that match a filter."""
    trials = asked.client.trials
    page = trials.page(asked.study, where=where, sort=sort, after=after, limit=limit)
    return asked.answer(page)


@router.get("/count", response_model=int)
def count_trials(asked: ViewingStudy, where: Where = "") -> Response:
    """Count the trials that match a filter."""
    return asked.answer(asked.client.trials.count(asked.study, where=where))


@router.get("/{number}", response_model=TrialDetail)
def get_trial(asked: ViewingStudy, number: Number) -> Response:
    """Return a trial with its attempts, decisions and attributes."""
    return asked.answer(asked.client.trials.get(asked.study, number))
