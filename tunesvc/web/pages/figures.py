"""Figures as data: JSON for the page's scripts, tables, and CSV downloads."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from tunesvc import charts
from tunesvc.charts import Chart, FigureKind, FigureOptions, Reader
from tunesvc.db.schema.states import STATES_SHOWN
from tunesvc.queries.change_token import fingerprint
from tunesvc.queries.rows import StudyStatus, StudyView
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_results import Results
from tunesvc.util import formatting
from tunesvc.web.access import Viewer
from tunesvc.web.live.cache import CacheEntry, StaleWhileRevalidateCache
from tunesvc.web.pages.dependencies import ID_MAX
from tunesvc.web.render import attachment, page

router = APIRouter()

TABLE_ROWS = 500
"""Most rows of a table on the page; the CSV file has all rows."""


@dataclass(frozen=True, slots=True)
class RenderedFigure:
    """A figure in serialised form."""

    chart: Chart
    """The chart without its figure."""
    body: bytes
    tag: str
    """Entity tag: the same for the same figure, even after commits that do not change it."""


@dataclass(frozen=True, slots=True)
class FigureSource:
    """Data of a study's figures as of its last commit."""

    view: StudyView
    stamp: str
    cache: StaleWhileRevalidateCache
    request: Request

    @property
    def is_final(self) -> bool:
        """True if no changes are to be expected soon."""
        may_run = self.view.state in (StudyStatus.RUNNING, StudyStatus.INTERRUPTED)
        return not (may_run or self.view.counts.running or self.view.counts.queued)

    def reader(self) -> Reader:
        """Return a reader that uses the cache of all open pages."""

        def cached(key: tuple[Any, ...], make: Any) -> Any:
            full_key = (self.view.study_id, *key)
            return self.cache.get(full_key, self.stamp, make, is_cheap=True).value

        return Reader(self.request.app.state.database, self.view, cached)

    def results(self) -> Results:
        """Return all trials as columns."""
        return self.reader().results()

    def rendered(self, kind: FigureKind, options: FigureOptions) -> CacheEntry:
        """Return a figure from the cache, or render it."""

        def make(_: Any) -> RenderedFigure:
            return _render(charts.draw(kind, self.reader(), options))

        return self.cache.get(
            (self.view.study_id, kind, options),
            self.stamp,
            make,
            is_final=self.is_final,
        )


def source_of(
    request: Request,
    study_id: int,
    *,
    is_fresh: bool = False,
) -> FigureSource:
    """Return the data of a study's figures.

    The stamp is read first: data read after it may be newer, and is then refreshed, but never
    older.

    Args:
        request: Request with the application's state.
        study_id: Id of the study.
        is_fresh: Read the study itself again, for example its current coordinator.

    Raises:
        StudyNotFound: there is no such study.
    """
    database = request.app.state.database
    cache = request.app.state.cache
    stamp = fingerprint(database, study_id)
    # Without a stamp the study is deleted, and the error tells by whom.
    if is_fresh or not stamp:
        return FigureSource(get_study_by_id(database, study_id), stamp, cache, request)
    view = cache.get(
        ("view", study_id),
        stamp,
        lambda _: get_study_by_id(database, study_id),
        is_cheap=True,
    )
    return FigureSource(view.value, stamp, cache, request)


def _source(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> FigureSource:
    return source_of(request, study_id)


def _fresh_source(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> FigureSource:
    return source_of(request, study_id, is_fresh=True)


AskedSource = Annotated[FigureSource, Depends(_source)]
AskedFresh = Annotated[FigureSource, Depends(_fresh_source)]


def _options(
    source: AskedSource,
    objective: Annotated[int, Query(ge=0, le=100)] = 0,
    p: Annotated[Sequence[str], Query(max_length=2)] = (),
    deviation: bool = False,
    state: Annotated[Sequence[str], Query(max_length=20)] = (),
    metric: Annotated[str, Query(max_length=400)] = "",
) -> FigureOptions:
    """Parse the options of the URL. An unknown objective is the first; no state means all."""
    index = objective if objective < len(source.view.objectives) else 0
    states = tuple(one for one in STATES_SHOWN if one in state)
    return FigureOptions(index, tuple(p), deviation, states, metric)


Options = Annotated[FigureOptions, Depends(_options)]


@router.get("/studies/{study_id}/figures/{kind}", name="figure")
def figure(
    request: Request,
    source: AskedSource,
    kind: FigureKind,
    options: Options,
) -> Response:
    """Return a figure as JSON: title, note, and Plotly's figure."""
    entry = source.rendered(kind, options)
    freshness = {"X-Fresh-In": f"{entry.fresh_in_s:.1f}", "X-Age": f"{entry.age_s:.1f}"}
    return _respond(request, entry.value, freshness)


def answer_chart(request: Request, chart: Chart) -> Response:
    """Return a chart as JSON, for figures that do not belong to one study."""
    return _respond(request, _render(chart), {})


def _respond(
    request: Request,
    rendered: RenderedFigure,
    headers: dict[str, str],
) -> Response:
    headers |= {
        "ETag": f'"{rendered.tag}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Cookie",
    }
    if rendered.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(rendered.body, media_type="application/json", headers=headers)


@router.get("/studies/{study_id}/figures/{kind}/table", name="figure_table")
def figure_table(
    request: Request,
    source: AskedSource,
    kind: FigureKind,
    options: Options,
) -> HTMLResponse:
    """Render the first rows of a figure's data as a table."""
    chart = source.rendered(kind, options).value.chart
    return answer_table(request, chart, source.view, kind)


def answer_table(
    request: Request,
    chart: Chart,
    study: StudyView | None,
    kind: FigureKind | None = None,
) -> HTMLResponse:
    """Render the first rows of a chart's data; `kind` links to the others."""
    return page(
        request,
        "figure_table.html",
        chart=chart,
        rows=[[_cell(value) for value in row] for row in chart.rows(TABLE_ROWS)],
        study=study,
        query=request.url.query,
        kind=kind,
    )


@router.get("/studies/{study_id}/figures/{kind}/data.csv", name="figure_csv")
def figure_csv(source: AskedSource, kind: FigureKind, options: Options) -> Response:
    """Return all of a figure's data as CSV."""
    chart = source.rendered(kind, options).value.chart
    return answer_csv(chart, f"{source.view.name}-{kind}")


def answer_csv(chart: Chart, name: str) -> Response:
    """Return all of a chart's data as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in (tuple(chart.columns), *chart.rows()):
        writer.writerow([formatting.escape_csv_formula(value) for value in row])
    return Response(
        text.getvalue().encode("utf-8", "replace"),
        media_type="text/csv; charset=utf-8",
        headers=attachment(name, ".csv"),
    )


def _render(chart: Chart) -> RenderedFigure:
    heading = {"title": chart.title, "note": chart.note, "rows": len(chart)}
    plotly = "null" if chart.figure is None else chart.figure.to_json()
    body = (json.dumps(heading)[:-1] + f', "figure": {plotly}}}').encode()
    tag = hashlib.sha256(body).hexdigest()[:20]
    return RenderedFigure(replace(chart, figure=None), body, tag)


def _cell(value: object) -> str:
    number: Any = value.item() if hasattr(value, "item") else value
    is_number = number is None or isinstance(number, float)
    return formatting.number(number) if is_number else str(number)
