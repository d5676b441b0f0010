"""Figures as data: what the scripts of a page draw, the same as a table, and to take away."""

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
"""Shown on the page; all of them are in the file."""


@dataclass(frozen=True, slots=True)
class RenderedFigure:
    """A figure as it is sent."""

    chart: Chart
    """Without the figure itself."""
    body: bytes
    tag: str
    """Of what is drawn: the same for the same drawing, whatever was committed meanwhile."""


@dataclass(frozen=True, slots=True)
class FigureSource:
    """A study as figures are drawn from it: as of its last commit."""

    view: StudyView
    stamp: str
    kept: StaleWhileRevalidateCache
    request: Request

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to be expected soon."""
        return self.view.state not in (
            StudyStatus.RUNNING,
            StudyStatus.INTERRUPTED,
        ) and not (self.view.counts.running or self.view.counts.queued)

    def reader(self) -> Reader:
        """Reads through what is kept for all open pages."""

        def keep(name: tuple[Any, ...], make: Any) -> Any:
            return self.kept.get(
                (self.view.study_id, *name),
                self.stamp,
                make,
                is_cheap=True,
            ).value

        return Reader(self.request.app.state.database, self.view, keep)

    def results(self) -> Results:
        """All trials as columns."""
        return self.reader().results()

    def drawn(self, kind: FigureKind, wanted: FigureOptions) -> CacheEntry:
        """A figure."""

        def make(_: Any) -> RenderedFigure:
            return _drawn(charts.draw(kind, self.reader(), wanted))

        return self.kept.get(
            (self.view.study_id, kind, wanted),
            self.stamp,
            make,
            is_final=self.is_final,
        )


def source_of(request: Request, study_id: int, *, is_fresh: bool = False) -> FigureSource:
    """A study's figures; `is_fresh`: with how the study stands at this moment, who runs it for example.

    The stamp is taken first: what is read after it may be newer, and is made anew then, but is never older.

    Raises:
        StudyNotFound: there is none.
    """
    database, kept = request.app.state.database, request.app.state.kept
    stamp = fingerprint(database, study_id)
    if is_fresh or not stamp:  # of a study that is no more it is said who deleted it
        return FigureSource(get_study_by_id(database, study_id), stamp, kept, request)
    view = kept.get(
        ("view", study_id),
        stamp,
        lambda _: get_study_by_id(database, study_id),
        is_cheap=True,
    )
    return FigureSource(view.value, stamp, kept, request)


def _asked(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> FigureSource:
    return source_of(request, study_id)


def _asked_fresh(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> FigureSource:
    return source_of(request, study_id, is_fresh=True)


AskedSource = Annotated[FigureSource, Depends(_asked)]
AskedFresh = Annotated[FigureSource, Depends(_asked_fresh)]


def _wanted(
    source: AskedSource,
    objective: Annotated[int, Query(ge=0, le=100)] = 0,
    p: Annotated[Sequence[str], Query(max_length=2)] = (),
    deviation: bool = False,
    state: Annotated[Sequence[str], Query(max_length=20)] = (),
    metric: Annotated[str, Query(max_length=400)] = "",
) -> FigureOptions:
    """What the address asks for; objectives that there are not are the first, and no state is every state."""
    at = objective if objective < len(source.view.objectives) else 0
    return FigureOptions(
        at,
        tuple(p),
        deviation,
        tuple(one for one in STATES_SHOWN if one in state),
        metric,
    )


Options = Annotated[FigureOptions, Depends(_wanted)]


@router.get("/studies/{study_id}/figures/{kind}", name="figure")
def figure(
    request: Request,
    source: AskedSource,
    kind: FigureKind,
    wanted: Options,
) -> Response:
    """A figure as JSON: title, note, and what Plotly draws."""
    held = source.drawn(kind, wanted)
    return _answer(
        request,
        held.value,
        {"X-Fresh-In": f"{held.fresh_in_s:.1f}", "X-Age": f"{held.age_s:.1f}"},
    )


def answer_chart(request: Request, chart: Chart) -> Response:
    """A chart as JSON, for a figure that is no study's own."""
    return _answer(request, _drawn(chart), {})


def _answer(request: Request, drawn: RenderedFigure, headers: dict[str, str]) -> Response:
    headers |= {
        "ETag": f'"{drawn.tag}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Cookie",
    }
    known = request.headers.get("if-none-match", "")
    if drawn.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(drawn.body, media_type="application/json", headers=headers)


@router.get("/studies/{study_id}/figures/{kind}/table", name="figure_table")
def figure_table(
    request: Request,
    source: AskedSource,
    kind: FigureKind,
    wanted: Options,
) -> HTMLResponse:
    """A figure's data as a table, its first rows."""
    chart: Chart = source.drawn(kind, wanted).value.chart
    rows = cells_of(chart, TABLE_ROWS)
    return page(
        request,
        "figure_table.html",
        chart=chart,
        rows=rows,
        study=source.view,
        query=request.url.query,
        kind=kind,
    )


@router.get("/studies/{study_id}/figures/{kind}/data.csv", name="figure_csv")
def figure_csv(source: AskedSource, kind: FigureKind, wanted: Options) -> Response:
    """A figure's data, whole."""
    return answer_csv(source.drawn(kind, wanted).value.chart, f"{source.view.name}-{kind}")


def answer_csv(chart: Chart, name: str) -> Response:
    """All of a chart's data as a file."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([formatting.escape_csv_formula(head) for head in chart.columns])
    writer.writerows(
        [[formatting.escape_csv_formula(value) for value in row] for row in chart.rows()],
    )
    return Response(
        text.getvalue().encode("utf-8", "replace"),
        media_type="text/csv; charset=utf-8",
        headers=attachment(name, ".csv"),
    )


def _drawn(chart: Chart) -> RenderedFigure:
    heading = {"title": chart.title, "note": chart.note, "rows": len(chart)}
    shown = "null" if chart.figure is None else chart.figure.to_json()
    body = (json.dumps(heading)[:-1] + f', "figure": {shown}}}').encode()
    return RenderedFigure(
        replace(chart, figure=None),
        body,
        hashlib.sha256(body).hexdigest()[:20],
    )


def cells_of(chart: Chart, limit: int) -> list[list[str]]:
    """A chart's table as text."""
    return [[_cell(value) for value in row] for row in chart.rows(limit)]


def _cell(value: object) -> str:
    number = value.item() if hasattr(value, "item") else value
    return formatting.number(number) if isinstance(number, float) else str(number)
