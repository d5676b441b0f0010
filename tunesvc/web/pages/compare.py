"""Comparison pages of trials and of studies."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from tunesvc import charts
from tunesvc.charts import Chart
from tunesvc.errors import StudyNotFound
from tunesvc.queries.comparison import best_value_history, study_facts, trial_facts
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.trials.attempt_events import get_curves
from tunesvc.queries.trials.trial_table import get_trial
from tunesvc.web.access import Viewer
from tunesvc.web.pages.dependencies import ID_MAX, AskedStudy, viewable
from tunesvc.web.pages.figures import answer_chart, answer_csv, answer_table
from tunesvc.web.render import page

router = APIRouter()

TRIALS_MAX = 12
STUDIES_MAX = 8

Study = Annotated[int | None, Query(ge=0, le=ID_MAX)]
Numbers = Annotated[list[str] | None, Query(max_length=100)]
Listed = Annotated[str, Path(max_length=400)]


@dataclass(frozen=True, slots=True)
class ComparedStudy:
    """Compared trials of a study, or compared studies."""

    study: StudyView | None
    trials: Sequence[TrialDetail]
    studies: Sequence[StudyView]


@router.get("/compare", name="compare_page")
def compare_page(
    request: Request,
    _: Viewer,
    study: Study = None,
    trials: Numbers = None,
    studies: Numbers = None,
) -> HTMLResponse:
    """Render a table of facts, with differences marked, and a chart of curves."""
    found = _compared(request, study, trials, studies)
    if found.study is not None:
        facts = trial_facts(found.study, found.trials)
        best = _bests(found.study, [detail.row.values for detail in found.trials])
        return page(
            request,
            "compare_trials.html",
            study=found.study,
            trials=found.trials,
            facts=facts,
            best=best,
        )
    facts = study_facts(found.studies)
    shown: dict[str, float] = {}
    if _are_comparable(found.studies):
        values = [(one.best_value,) for one in found.studies if one.best_value is not None]
        for best_value in _bests(found.studies[0], values).values():
            shown["best value"] = best_value
    return page(
        request,
        "compare_studies.html",
        studies=found.studies,
        facts=facts,
        best=shown,
    )


@router.get("/compare/trials/{study_id}/{listed}", name="compare_trials_curves")
def compare_trials_curves(
    request: Request,
    study: AskedStudy,
    listed: Listed,
) -> Response:
    """Return curves of trials as a figure."""
    return answer_chart(request, _trials_chart(request, study, listed))


@router.get("/compare/trials/{study_id}/{listed}/table")
def compare_trials_table(
    request: Request,
    study: AskedStudy,
    listed: Listed,
) -> HTMLResponse:
    """Render the figure's data as a table."""
    return answer_table(request, _trials_chart(request, study, listed), study)


@router.get("/compare/trials/{study_id}/{listed}/data.csv", name="compare_trials_csv")
def compare_trials_csv(
    request: Request,
    study: AskedStudy,
    listed: Listed,
) -> Response:
    """Return the figure's data as CSV."""
    return answer_csv(_trials_chart(request, study, listed), f"{study.name}-comparison")


@router.get("/compare/studies/{listed}", name="compare_studies_curves")
def compare_studies_curves(request: Request, _: Viewer, listed: Listed) -> Response:
    """Return the best values so far of studies as a figure."""
    return answer_chart(request, _studies_chart(request, listed))


@router.get("/compare/studies/{listed}/table")
def compare_studies_table(request: Request, _: Viewer, listed: Listed) -> HTMLResponse:
    """Render the figure's data as a table."""
    return answer_table(request, _studies_chart(request, listed), None)


@router.get("/compare/studies/{listed}/data.csv", name="compare_studies_csv")
def compare_studies_csv(request: Request, _: Viewer, listed: Listed) -> Response:
    """Return the figure's data as CSV."""
    return answer_csv(_studies_chart(request, listed), "comparison")


def _compared(
    request: Request,
    study: int | None,
    trials: Numbers,
    studies: Numbers,
) -> ComparedStudy:
    if study is None:
        ids = _numbers(studies)[:STUDIES_MAX]
        if not ids:
            hint = "select trials in a study's table, or studies in their list"
            raise StudyNotFound(f"nothing is selected: {hint}")
        return ComparedStudy(None, (), [viewable(request, one) for one in ids])
    view = viewable(request, study)
    details = []
    for number in _numbers(trials)[:TRIALS_MAX]:
        detail = get_trial(request.app.state.database, view.study_id, number)
        if detail is not None:
            details.append(detail)
    if not details:
        problem = f"study {view.name!r} has none of these trials"
        raise StudyNotFound(f"{problem}; select some in its table of trials")
    return ComparedStudy(view, details, ())


def _numbers(listed: Numbers) -> list[int]:
    """Parse numbers: `3,7` and `9` to 3, 7, 9."""
    found: list[int] = []
    for text in listed or ():
        found += map(int, re.findall(r"\d{1,10}", text))
    return [number for number in dict.fromkeys(found) if number <= ID_MAX]


def _bests(
    study: StudyView,
    values: Sequence[tuple[float, ...] | None],
) -> dict[str, float]:
    """Return the best value of each objective, without NaN."""
    best = {}
    for index, objective in enumerate(study.objectives):
        column = [one[index] for one in values if one and not math.isnan(one[index])]
        if column:
            best[objective.name] = max(column) if objective.maximize else min(column)
    return best


def _trials_chart(request: Request, study: StudyView, listed: str) -> Chart:
    numbers = _numbers([listed])[:TRIALS_MAX]
    curves = get_curves(
        request.app.state.database,
        study.study_id,
        numbers=numbers,
        max_points=max(50, 6_000 // max(1, len(numbers))),
    )
    in_order = sorted(curves, key=lambda curve: numbers.index(curve.trial_number))
    return charts.compared_curves(study.objectives[0], in_order)


def _studies_chart(request: Request, listed: str) -> Chart:
    studies = [viewable(request, one) for one in _numbers([listed])[:STUDIES_MAX]]
    if not _are_comparable(studies):
        reason = "These studies do not optimise one and the same metric."
        return Chart("Best so far", None, reason)
    database = request.app.state.database
    histories = {study.name: best_value_history(database, study) for study in studies}
    return charts.best_so_far(studies[0].objectives[0].name, histories)


def _are_comparable(studies: Sequence[StudyView]) -> bool:
    """Return True if the studies have the same single objective."""
    return len({study.objectives for study in studies}) == 1 and len(studies[0].objectives) == 1
