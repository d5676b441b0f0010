"""The table of a study's trials. Filter, sort order and columns are in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from tunesvc.errors import FilterError, TuneError
from tunesvc.queries.export.export_files import Export
from tunesvc.queries.rows import RowPage, StudyView
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.filter_language import MEANINGS, Names
from tunesvc.queries.trials.pagination import (
    Selection,
    TrialSort,
    count_trials,
    trial_page,
)
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.web.pages.dependencies import AskedStudy
from tunesvc.web.pages.trial_columns import Column, columns_of
from tunesvc.web.render import attachment, page, wants_fragment

router = APIRouter()

SHOWN = 100
"""Trials per page."""
ROWS_MAX = 500
"""Most rows that are requested by number at a time."""
NEWEST = "-number"

Where = Annotated[str, Query(max_length=4_000)]
SortBy = Annotated[str, Query(max_length=400)]
Chosen = Annotated[list[str] | None, Query(alias="col")]


@dataclass(frozen=True, slots=True)
class TrialListQuery:
    """Filter, sort order and columns of the URL."""

    where: str
    sort: str
    columns: Sequence[Column]
    selected: Sequence[str]
    """Keys of the selected columns; empty for the default ones."""

    def url_query(self, **changes: object) -> str:
        """Return the query part of a URL with some changes."""
        fields: dict[str, object] = {"where": self.where, "sort": self.sort, **changes}
        parts = [(name, value) for name, value in fields.items() if value not in ("", None)]
        parts += [("col", key) for key in self.selected]
        return urlencode(parts)

    def sorted_by(self, column: Column) -> str | None:
        """Return `ascending` or `descending` for the column of the sort order; else None."""
        if self.sort.removeprefix("-") != column.sort:
            return None
        return "descending" if self.sort.startswith("-") else "ascending"

    def toggled(self, column: Column) -> str:
        """Return the query part that sorts by a column, or reverses its order."""
        reverse = self.sort == column.sort
        return self.url_query(sort=f"-{column.sort}" if reverse else column.sort)


@router.get("/studies/{study_id}/trials", name="trials_page")
def trials_page(
    request: Request,
    study: AskedStudy,
    where: Where = "",
    sort: SortBy = NEWEST,
    chosen: Chosen = None,
    after: Annotated[str, Query(max_length=400)] = "",
) -> HTMLResponse:
    """Render a page of trials; for htmx, only the table, or with `after` the next rows."""
    database = request.app.state.database
    names = names_of(database, study)
    query = _query(study, names, where, sort, chosen)
    values: dict[str, Any] = {
        "study": study,
        "query": query,
        "fault": None,
        "found": None,
    }
    try:
        selection = Selection.of(study.study_id, names, query.where, query.sort)
        values["found"] = trial_page(database, selection, after=after, limit=SHOWN)
    except FilterError as error:
        values["fault"] = error
    if wants_fragment(request):
        has_rows = after and values["found"]
        return page(
            request,
            "trials_rows.html" if has_rows else "trials_table.html",
            **values,
        )
    status = 200 if values["fault"] is None else 422
    return page(
        request,
        "trials.html",
        status,
        names=names,
        meanings=MEANINGS,
        all=columns_of(study.objectives, names, is_priced=study.prices is not None),
        **values,
    )


@router.get("/studies/{study_id}/trials/rows", name="trial_rows")
def trial_rows(
    request: Request,
    study: AskedStudy,
    number: Annotated[list[int] | None, Query(max_length=ROWS_MAX)] = None,
    chosen: Chosen = None,
) -> HTMLResponse:
    """Render the current rows of some trials; header `X-Trials` has the number of all trials."""
    names = names_of(request.app.state.database, study)
    numbers = [one for one in number or () if 0 <= one < 2**31]
    rows = rows_of(request.app.state.database, study.study_id, numbers)
    response = page(
        request,
        "trials_rows.html",
        study=study,
        query=_query(study, names, "", NEWEST, chosen),
        found=RowPage(rows),
    )
    response.headers["X-Trials"] = str(study.counts.total)
    return response


@router.get("/studies/{study_id}/trials/count", name="trials_count")
def trials_count(
    request: Request,
    study: AskedStudy,
    where: Where = "",
) -> HTMLResponse:
    """Render the number of trials that match, which takes longer than a page of them."""
    names = names_of(request.app.state.database, study)
    found = count_trials(
        request.app.state.database,
        Selection.of(study.study_id, names, _clean(where)),
    )
    return page(request, "trials_count.html", found=found, total=study.counts.total)


@router.get("/studies/{study_id}/trials.csv", name="trials_csv")
def trials_csv(
    request: Request,
    study: AskedStudy,
    where: Where = "",
    sort: SortBy = "number",
) -> Response:
    """Return the matching trials with all columns as CSV."""
    export = _export(request, study, where, sort)
    return _download(study, export.csv(), "csv", "text/csv; charset=utf-8")


@router.get("/studies/{study_id}/trials.parquet", name="trials_parquet")
def trials_parquet(
    request: Request,
    study: AskedStudy,
    where: Where = "",
    sort: SortBy = "number",
) -> Response:
    """Return the matching trials with all columns as Parquet."""
    export = _export(request, study, where, sort)
    return _download(
        study,
        export.parquet(),
        "parquet",
        "application/vnd.apache.parquet",
    )


def _export(request: Request, study: StudyView, where: str, sort: str) -> Export:
    database = request.app.state.database
    names = names_of(database, study)
    return Export(
        database,
        study,
        names,
        Selection.of(study.study_id, names, _clean(where), _clean(sort)),
    )


def _download(study: StudyView, content: Any, ending: str, kind: str) -> Response:
    return StreamingResponse(
        content,
        media_type=kind,
        headers=attachment(study.name, f".{ending}"),
    )


def _query(
    study: StudyView,
    names: Names,
    where: str,
    sort: str,
    chosen: Sequence[str] | None,
) -> TrialListQuery:
    columns = columns_of(study.objectives, names, is_priced=study.prices is not None)
    keys = {column.key for column in columns}
    selected = [key for key in dict.fromkeys(chosen or ()) if key in keys]
    if selected:
        shown = [column for column in columns if column.key in selected]
    else:
        shown = [column for column in columns if column.is_usual]
    return TrialListQuery(_clean(where), _sort(_clean(sort), names), shown, selected)


def _sort(text: str, names: Names) -> str:
    # An old URL may contain a name that no longer exists.
    try:
        TrialSort.of(text, names)
    except TuneError:
        return NEWEST
    return text


def _clean(text: str) -> str:
    return text.replace("\0", "").strip()
