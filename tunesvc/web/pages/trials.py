"""The trials of a study: filter, sort and columns are in the address; further pages go on after a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from tunesvc.errors import FilterError, TuneError
from tunesvc.queries.export.export_files import Export
from tunesvc.queries.rows import StudyView
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.filter_language import MEANINGS, Names
from tunesvc.queries.trials.pagination import (
    Selection,
    TrialPage,
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
"""Trials of a page."""
ROWS_MAX = 500
"""Rows that are asked for by their numbers at a time."""
NEWEST = "-number"

Where = Annotated[str, Query(max_length=4_000)]
SortBy = Annotated[str, Query(max_length=400)]
Chosen = Annotated[list[str] | None, Query(alias="col")]


@dataclass(frozen=True, slots=True)
class TrialListQuery:
    """What the address asks for."""

    where: str
    sort: str
    columns: Sequence[Column]
    chosen: Sequence[str]
    """Keys of the columns, where they were chosen."""

    def query(self, **changes: object) -> str:
        """What an address that asks for the same ends with, with some of it changed."""
        parts: list[tuple[str, object]] = [
            *{"where": self.where, "sort": self.sort, **changes}.items(),
        ]
        parts += [("col", key) for key in self.chosen]
        return urlencode(
            [(name, value) for name, value in parts if value not in ("", None)],
        )

    def sorted_by(self, column: Column) -> str | None:
        """`ascending` or `descending`, where it is what the trials are sorted by."""
        if self.sort.removeprefix("-") != column.sort:
            return None
        return "descending" if self.sort.startswith("-") else "ascending"

    def turned(self, column: Column) -> str:
        """The address's end that sorts by a column, or the other way round."""
        return self.query(
            sort=f"-{column.sort}" if self.sort == column.sort else column.sort,
        )


@router.get("/studies/{study_id}/trials", name="trials_page")
def trials_page(
    request: Request,
    study: AskedStudy,
    where: Where = "",
    sort: SortBy = NEWEST,
    chosen: Chosen = None,
    after: Annotated[str, Query(max_length=400)] = "",
) -> HTMLResponse:
    """A page of trials; when htmx asks for it the table alone, or with `after` the rows that follow."""
    names = names_of(request.app.state.database, study)
    wanted = _wanted(study, names, where, sort, chosen)
    told: dict[str, Any] = {"study": study, "wanted": wanted, "fault": None, "found": None}
    try:
        selection = Selection.of(study.study_id, names, wanted.where, wanted.sort)
        told["found"] = trial_page(
            request.app.state.database,
            selection,
            after=after,
            limit=SHOWN,
        )
    except FilterError as fault:
        told["fault"] = fault
    if wants_fragment(request):
        return page(
            request,
            "trials_rows.html" if after and told["found"] else "trials_table.html",
            **told,
        )
    status = 200 if told["fault"] is None else 422
    return page(
        request,
        "trials.html",
        status,
        names=names,
        meanings=MEANINGS,
        all=_all(study, names),
        **told,
    )


@router.get("/studies/{study_id}/trials/rows", name="trial_rows")
def trial_rows(
    request: Request,
    study: AskedStudy,
    number: Annotated[list[int] | None, Query(max_length=ROWS_MAX)] = None,
    chosen: Chosen = None,
) -> HTMLResponse:
    """Rows by their numbers, as they are now; and how many trials there are, in `X-Trials`."""
    names = names_of(request.app.state.database, study)
    asked = [one for one in number or () if 0 <= one < 2**31]
    rows = rows_of(request.app.state.database, study.study_id, asked)
    wanted = _wanted(study, names, "", NEWEST, chosen)
    answer = page(
        request,
        "trials_rows.html",
        study=study,
        wanted=wanted,
        found=TrialPage(rows, None),
    )
    answer.headers["X-Trials"] = str(study.counts.total)
    return answer


@router.get("/studies/{study_id}/trials/count", name="trials_count")
def trials_count(request: Request, study: AskedStudy, where: Where = "") -> HTMLResponse:
    """How many trials a filter lets through, which takes longer than a page of them."""
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
    """The trials that a filter lets through, all columns of them."""
    export = _export(request, study, where, sort)
    return _download(study, export.csv(), "csv", "text/csv; charset=utf-8")


@router.get("/studies/{study_id}/trials.parquet", name="trials_parquet")
def trials_parquet(
    request: Request,
    study: AskedStudy,
    where: Where = "",
    sort: SortBy = "number",
) -> Response:
    """The same as Parquet."""
    export = _export(request, study, where, sort)
    return _download(study, export.parquet(), "parquet", "application/vnd.apache.parquet")


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


def _wanted(
    study: StudyView,
    names: Names,
    where: str,
    sort: str,
    chosen: Sequence[str] | None,
) -> TrialListQuery:
    there = _all(study, names)
    kept = [key for key in dict.fromkeys(chosen or ()) if key in {column.key for column in there}]
    shown = [column for column in there if column.key in kept] if kept else [c for c in there if c.is_usual]
    return TrialListQuery(_clean(where), _sort(_clean(sort), names), shown, kept)


def _sort(text: str, names: Names) -> str:
    """An address may be older than what it names: the newest first then."""
    try:
        TrialSort.of(text, names)
    except TuneError:
        return NEWEST
    return text


def _all(study: StudyView, names: Names) -> list[Column]:
    return columns_of(study.objectives, names)


def _clean(text: str) -> str:
    return text.replace("\0", "").strip()
