"""One study: what it has come to, what runs, what happened lately, and its figures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from tunesvc import charts
from tunesvc.charts import FigureKind
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable
from tunesvc.queries.recommendation import recommend_by_model, with_repeats
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.study_summary import (
    StudySummary,
    get_summary,
    list_queued,
    list_recent_decisions,
    list_running,
)
from tunesvc.queries.trials.columns import names_of
from tunesvc.queries.trials.trial_table import rows_of
from tunesvc.search.analysis.recommend import Recommendation
from tunesvc.web.pages.dependencies import AskedStudy
from tunesvc.web.pages.figures import AskedFresh, FigureSource
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

WAIT_S = 0.15
"""How long a page waits for the recommendation; it comes by itself once it is there."""
FRONT = 10
"""Trials of a front that are listed; all are in its figure."""
SELECTED_MAX = 100
"""Trials that can be selected at a time."""


@dataclass(frozen=True, slots=True)
class RecommendedTrial:
    """The trial to take."""

    row: TrialRow
    mean: float | None
    deviation: float | None
    evidence: str
    """For its value, in words; empty when there is only the observed value."""
    luckiest: int | None
    """The trial with the best observed value, where that is another one."""
    luck: str = ""
    """What to think of that."""
    fresh_in_s: int | None = None
    """When to ask again, where trials have come to a result that it does not consider yet."""

    @property
    def params_text(self) -> str:
        """Its parameters as YAML."""
        return params_text(self.row)


@router.get("/studies/{study_id}", name="study_page")
def study_page(request: Request, source: AskedFresh) -> HTMLResponse:
    """The page, or its live parts alone when htmx asks for them."""
    database = request.app.state.database
    study = source.view
    results = source.results()
    headline = get_summary(database, study, results)
    front = results.numbers[charts.front_of(study.objectives, results)].tolist() if len(study.objectives) > 1 else []
    return page(
        request,
        "study_live.html" if wants_fragment(request) else "study.html",
        study=study,
        headline=headline,
        answer=_answer(source, headline),
        front=rows_of(database, study.study_id, front[:FRONT]),
        on_front=len(front),
        running=list_running(database, study.study_id) if study.counts.running or study.counts.interrupted else (),
        queued=list_queued(database, study.study_id) if study.counts.queued else (),
        decisions=list_recent_decisions(database, study.study_id, study.counts.total),
        kinds=charts.kinds_of(study),
        titles=TITLES,
        parameters=_parameter_names(study),
        metrics=names_of(database, study).other_metrics,
    )


@router.get("/studies/{study_id}/selected", name="selected_part")
def selected_part(
    request: Request,
    study: AskedStudy,
    trials: Annotated[str, Query(max_length=4_000)] = "",
) -> HTMLResponse:
    """Trials that were selected in a figure, as a table."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", trials)][:SELECTED_MAX]
    rows = rows_of(request.app.state.database, study.study_id, list(dict.fromkeys(numbers)))
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    return page(request, "study_selected.html", study=study, rows=rows, names=names)


TITLES: dict[FigureKind, str] = {
    FigureKind.PARETO: "Pareto front",
    FigureKind.HYPERVOLUME: "Hypervolume",
    FigureKind.HISTORY: "History",
    FigureKind.CURVES: "Learning curves",
    FigureKind.PARALLEL: "Parallel coordinates",
    FigureKind.IMPORTANCE: "Importance",
    FigureKind.CONTOUR: "Two parameters: the model",
    FigureKind.SLICE: "Each parameter by itself",
    FigureKind.RANK: "Two parameters: ranks",
    FigureKind.CORRELATIONS: "Correlations",
    FigureKind.DISTRIBUTION: "Distribution",
    FigureKind.TIMELINE: "Timeline of workers",
}
"""Until the figure brings its own."""


def params_text(row: TrialRow) -> str:
    """A trial's parameters as YAML."""
    return yaml.safe_dump(dict(row.params), sort_keys=False, allow_unicode=True) if row.params else ""


def _answer(source: FigureSource, headline: StudySummary) -> RecommendedTrial | None:
    """The recommended trial, or the best observed one until that is known."""
    if headline.best is None:
        return None
    view, database, hub = (
        source.view,
        source.request.app.state.database,
        source.request.app.state.hub,
    )
    results = source.results()

    def make(_: Any) -> Recommendation | None:
        with translate_unavailable():
            return recommend_by_model(database, view, results)

    held = source.kept.get_or_refresh(
        (view.study_id, "recommended"),
        source.stamp,
        make,
        wait_s=WAIT_S,
        done=lambda: hub.changed(frozenset({view.study_id})),
        is_final=source.is_final,
        forgiven=(DatabaseUnavailable,),
    )
    found: Recommendation | None = None if held is None else held.value
    if found is not None:
        found = with_repeats(database, view, results, found)
    rows = rows_of(
        database,
        view.study_id,
        [headline.best if found is None else found.number],
    )
    if not rows:  # the study was deleted meanwhile
        return None
    (row,) = rows
    if held is None or found is None:
        return RecommendedTrial(row, None, None, "", None, fresh_in_s=1)
    luckiest = found.luckiest if found.luckiest != found.number else None
    evidence = found.describe(view.shared_seeds)
    fresh_in_s = None if held.stamp == source.stamp else max(1, math.ceil(held.fresh_in_s))
    return RecommendedTrial(
        row,
        found.mean,
        found.deviation,
        evidence,
        luckiest,
        found.luck,
        fresh_in_s,
    )


def _parameter_names(study: StudyView) -> list[str]:
    """That a figure of two can be asked for."""
    return [] if study.spec is None else list(study.spec.parameters)
