"""The page of a study: recommendation, running trials, recent events and figures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from tunesvc import charts
from tunesvc.champions.watch_result import OUTCOMES
from tunesvc.champions.watch_specs import family_of
from tunesvc.charts import FigureKind
from tunesvc.data.prepared_data import TEST
from tunesvc.db.champions import champion_tenures, served_watches
from tunesvc.db.champions.champion_records import find_earlier
from tunesvc.db.champions.champion_tenures import Tenure
from tunesvc.db.champions.served_watches import ServedWatch
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable
from tunesvc.queries.operations.data_lineage import (
    DataUsed,
    StudyOfData,
    get_data,
    list_studies_of_data,
)
from tunesvc.queries.operations.final_models import find_modelled_trial
from tunesvc.queries.operations.final_results import TestResult, get_test_result
from tunesvc.queries.operations.final_runs import get_final_run
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
from tunesvc.spec.yaml.document import to_yaml
from tunesvc.util.formatting import names_in
from tunesvc.web.access import viewable_studies
from tunesvc.web.pages.dependencies import AskedStudy
from tunesvc.web.pages.figures import AskedFresh, FigureSource
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

WAIT_S = 0.15
"""Longest time that a page waits for the recommendation, which otherwise appears later."""
FRONT = 10
"""Most listed trials of a front; its figure has all."""
SELECTED_MAX = 100
"""Most selected trials at a time."""


@dataclass(frozen=True, slots=True)
class RecommendedTrial:
    """The recommended trial."""

    row: TrialRow
    mean: float | None
    deviation: float | None
    evidence: str
    """Evidence for its value in words; empty if only the observed value is known."""
    luckiest: int | None
    """Trial with the best observed value; None if it is this one."""
    luck: str = ""
    """Comment on the luckiest trial."""
    seeds: str = ""
    """Advice to share seeds; empty if parameters decide more."""
    fresh_in_s: int | None = None
    """Time until the page requests it again; None if it considers all results."""

    @property
    def params_text(self) -> str:
        """Its parameters as YAML."""
        return params_text(self.row)


@router.get("/studies/{study_id}", name="study_page")
def study_page(request: Request, source: AskedFresh) -> HTMLResponse:
    """Render the page; for htmx, only its live parts."""
    database = request.app.state.database
    study = source.view
    results = source.results()
    summary = get_summary(database, study, results)
    front: list[int] = []
    if len(study.objectives) > 1:
        front = results.numbers[charts.front_of(study.objectives, results)].tolist()
    has_running = study.counts.running or study.counts.interrupted
    tenures = () if wants_fragment(request) else _tenures(request, study)
    return page(
        request,
        "study_live.html" if wants_fragment(request) else "study.html",
        study=study,
        summary=summary,
        answer=_answer(source, summary),
        front=rows_of(database, study.study_id, front[:FRONT]),
        on_front=len(front),
        running=list_running(database, study.study_id) if has_running else (),
        queued=list_queued(database, study.study_id) if study.counts.queued else (),
        decisions=list_recent_decisions(database, study.study_id, study.counts.total),
        kinds=charts.kinds_of(study),
        titles=TITLES,
        parameters=_parameter_names(study),
        metrics=names_of(database, study).other_metrics,
        data=_data(request, study),
        tested=None if wants_fragment(request) else _test_result(request, study),
        stages=None if wants_fragment(request) else _last_stages(request, study),
        tenures=tenures[:TENURES],
        watch=None if wants_fragment(request) else _watch(request, study),
        outcomes=OUTCOMES,
        can_roll_back=_can_roll_back(tenures),
    )


TENURES = 10
"""Most tenures of a family's champions that are listed."""
EARLIER_MAX = 100
"""Most tenures among which a champion to restore is looked for."""


def _test_result(request: Request, study: StudyView) -> TestResult | None:
    """Return the study's result on the test part, with the uses that the user may see."""
    scope = viewable_studies(request, request.state.user)
    return get_test_result(request.app.state.database, study.study_id, scope)


def _tenures(request: Request, study: StudyView) -> tuple[Tenure, ...]:
    """Return the newest tenures of the family's champions that the user may see, newest first."""
    scope = viewable_studies(request, request.state.user)
    with request.app.state.database.engine.connect() as connection:
        family = family_of(study.name)
        return champion_tenures.list_tenures(connection, family, scope, limit=EARLIER_MAX)


def _can_roll_back(tenures: tuple[Tenure, ...]) -> bool:
    promoted = [one.promoted for one in tenures]
    return bool(promoted) and find_earlier(promoted) is not None


def _watch(request: Request, study: StudyView) -> ServedWatch | None:
    """Return how servers watch the study's family, if they do and the user may see it."""
    scope = viewable_studies(request, request.state.user)
    with request.app.state.database.engine.connect() as connection:
        return served_watches.find(connection, family_of(study.name), scope)


@dataclass(frozen=True, slots=True)
class LastStages:
    """The stages that may follow a study's search, and its trained model."""

    may_test: bool
    """True if the study has ended with a result, and has a test part."""
    model_of: int | None
    """Number of the trial whose model is stored; None without one."""
    quoted: str
    """The study's name as a text in Python."""


def _last_stages(request: Request, study: StudyView) -> LastStages:
    database = request.app.state.database
    data = get_data(database, study.study_id)
    has_test_part = data is not None and TEST in data.rows
    has_result = study.is_at_rest and study.counts.complete > 0
    may_test = has_test_part and has_result and get_final_run(database, study.study_id) is None
    return LastStages(may_test, find_modelled_trial(database, study.study_id), repr(study.name))


@dataclass(frozen=True, slots=True)
class DataOrigin:
    """Lineage of the study's data, and other studies of it."""

    used: DataUsed
    others: tuple[StudyOfData, ...]
    """Other studies of the same version, of those that the user may view."""


def _data(request: Request, study: StudyView) -> DataOrigin | None:
    database = request.app.state.database
    used = get_data(database, study.study_id)
    if used is None:
        return None
    scope = viewable_studies(request, request.state.user)
    others = (
        one
        for one in list_studies_of_data(database, scope)
        if one.data.version == used.version and one.study_id != study.study_id
    )
    return DataOrigin(used, tuple(others))


@router.get("/studies/{study_id}/selected", name="selected_part")
def selected_part(
    request: Request,
    study: AskedStudy,
    trials: Annotated[str, Query(max_length=4_000)] = "",
) -> HTMLResponse:
    """Render the trials that were selected in a figure as a table."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", trials)][:SELECTED_MAX]
    rows = rows_of(
        request.app.state.database,
        study.study_id,
        list(dict.fromkeys(numbers)),
    )
    names = names_in(row.params for row in rows)
    return page(request, "study_selected.html", study=study, rows=rows, names=names)


TITLES: dict[FigureKind, str] = {
    FigureKind.PARETO: "Pareto front",
    FigureKind.HYPERVOLUME: "Hypervolume",
    FigureKind.LINEAGE: "Lineage",
    FigureKind.HISTORY: "History",
    FigureKind.COST: "Best value by cost",
    FigureKind.CURVES: "Learning curves",
    FigureKind.PARALLEL: "Parallel coordinates",
    FigureKind.IMPORTANCE: "Importance",
    FigureKind.INTERACTIONS: "Interactions",
    FigureKind.DEPENDENCE: "Partial dependence",
    FigureKind.CONTOUR: "Two parameters: the model",
    FigureKind.SLICE: "Each parameter by itself",
    FigureKind.RANK: "Two parameters: ranks",
    FigureKind.CORRELATIONS: "Correlations",
    FigureKind.DISTRIBUTION: "Distribution",
    FigureKind.TIMELINE: "Timeline of workers",
}
"""Titles until the figures are loaded."""


def params_text(row: TrialRow) -> str:
    """Return a trial's parameters as YAML."""
    return to_yaml(dict(row.params)) if row.params else ""


def _answer(source: FigureSource, summary: StudySummary) -> RecommendedTrial | None:
    """Return the recommended trial, or the best observed one until that is known."""
    if summary.best is None:
        return None
    view = source.view
    state = source.request.app.state
    database, hub = state.database, state.hub
    results = source.results()

    def make(_: Any) -> Recommendation | None:
        with translate_unavailable():
            return recommend_by_model(database, view, results)

    entry = source.cache.get_or_refresh(
        (view.study_id, "recommended"),
        source.stamp,
        make,
        wait_s=WAIT_S,
        done=lambda: hub.changed(frozenset({view.study_id})),
        is_final=source.is_final,
        forgiven=(DatabaseUnavailable,),
    )
    found: Recommendation | None = None if entry is None else entry.value
    if found is not None:
        found = with_repeats(database, view, results, found)
    number = summary.best if found is None else found.number
    rows = rows_of(database, view.study_id, [number])
    if not rows:  # the study was deleted in the meantime
        return None
    (row,) = rows
    if entry is None or found is None:
        return RecommendedTrial(row, None, None, "", None, fresh_in_s=1)
    luckiest = found.luckiest if found.luckiest != found.number else None
    evidence = found.describe(view.shared_blocks_text)
    is_current = entry.stamp == source.stamp
    fresh_in_s = None if is_current else max(1, math.ceil(entry.fresh_in_s))
    return RecommendedTrial(
        row,
        found.mean,
        found.deviation,
        evidence,
        luckiest,
        found.luck,
        found.advise_seeds(view.name),
        fresh_in_s,
    )


def _parameter_names(study: StudyView) -> list[str]:
    # The page offers these for figures of two parameters.
    return [] if study.spec is None else list(study.spec.parameters)
