"""One trial: what it is, why it was proposed and judged so, where it lies in the space, and what happened to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from tunesvc import charts
from tunesvc.charts import Chart
from tunesvc.queries.explain.explanation import Statement, describe_trial
from tunesvc.queries.explain.trial_attribution import get_attribution
from tunesvc.queries.explain.trial_reasons import TrialReasons, get_trial_reasons
from tunesvc.queries.rows import ReportCurve, StudyView, TrialDetail, TrialRow
from tunesvc.queries.trials.attempt_events import get_curves, get_log_end, list_logs
from tunesvc.queries.trials.trial_table import get_distributions, list_best_trials, rows_of
from tunesvc.search.analysis.attribution import Attribution
from tunesvc.space import search_space
from tunesvc.spec import ParamValue
from tunesvc.web.pages.dependencies import AskedStudy, AskedTrial
from tunesvc.web.pages.figures import (
    TABLE_ROWS,
    AskedSource,
    FigureSource,
    answer_chart,
    answer_csv,
    cells_of,
)
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

PEERS = 60
"""Trials whose curves surround one, about."""
OBJECTIVES_MAX = 4
"""Objectives that parameters are explained for."""
CHOICES_MAX = 12
"""Choices of a parameter that are listed."""

MetricName = Annotated[str, Query(alias="metric", max_length=400)]


@dataclass(frozen=True, slots=True)
class RangeMarker:
    """Where another trial lies in a parameter's range."""

    number: int
    at: float
    """0 ... 1."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class ParamView:
    """One parameter of a trial against what it could have been."""

    name: str
    value: ParamValue
    at: float | None
    """Where in its range, 0 ... 1; None for a choice."""
    low: float | None
    high: float | None
    is_log: bool
    choices: Sequence[ParamValue]
    """All there are; empty for a number."""
    marks: Sequence[RangeMarker]
    """Of numbers: the best trial and the nearest ones."""
    best: ParamValue
    """The best trial's value; None when it has none."""


@router.get("/studies/{study_id}/trials/{number}", name="trial_page")
def trial_page(request: Request, study: AskedStudy, detail: AskedTrial) -> HTMLResponse:
    """The page, or its live parts alone when htmx asks for them."""
    database = request.app.state.database
    reasons = get_trial_reasons(database, study, detail)
    best = next(iter(list_best_trials(database, study.study_id, limit=1)), None)
    return page(
        request,
        "trial_live.html" if wants_fragment(request) else "trial.html",
        study=study,
        detail=detail,
        row=detail.row,
        reasons=reasons,
        said=_by_topic(describe_trial(study, detail, reasons)),
        best=best,
        settings=_settings(request, study, detail, reasons, best),
        metrics=_metrics(study, detail),
        is_open=not detail.row.is_finished,
    )


@router.get("/studies/{study_id}/trials/{number}/curve", name="trial_curve")
def trial_curve(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> Response:
    """Its curve among its peers, as a figure."""
    return answer_chart(request, _curve_chart(request, study, detail, metric))


@router.get("/studies/{study_id}/trials/{number}/curve/table", name="trial_curve_table")
def trial_curve_table(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> HTMLResponse:
    """The same as a table."""
    chart = _curve_chart(request, study, detail, metric)
    return page(
        request,
        "figure_table.html",
        chart=chart,
        rows=cells_of(chart, TABLE_ROWS),
        study=study,
        kind=None,
    )


@router.get("/studies/{study_id}/trials/{number}/curve/data.csv", name="trial_curve_csv")
def trial_curve_csv(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> Response:
    """The same as a file."""
    chart = _curve_chart(request, study, detail, metric)
    return answer_csv(chart, f"{study.name}-{detail.row.number}-curve")


@router.get("/studies/{study_id}/trials/{number}/logs", name="trial_logs")
def trial_logs(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    before: Annotated[str, Query(max_length=60)] = "",
    after: Annotated[str, Query(max_length=60)] = "",
) -> HTMLResponse:
    """Its output: the end of it, what comes before a place, or what has come after one."""
    database, number = request.app.state.database, detail.row.number
    if after:
        rows = list_logs(database, study.study_id, number, after=_cursor(after), limit=500)
        has_earlier = False
    else:
        start = _cursor(before) if before else None
        rows, has_earlier = get_log_end(database, study.study_id, number, before=start)
    return page(
        request,
        "trial_logs.html",
        study=study,
        row=detail.row,
        rows=rows,
        has_earlier=has_earlier,
        follows=bool(after),
    )


@router.get("/studies/{study_id}/trials/{number}/parameters", name="trial_local")
def trial_local(request: Request, detail: AskedTrial, source: AskedSource) -> HTMLResponse:
    """What each of its parameters did, for every objective; the model behind it is kept for all trials."""
    objectives = source.view.objectives[:OBJECTIVES_MAX]
    found = [(objective, _attribution(source, detail.row, index)) for index, objective in enumerate(objectives)]
    return page(request, "trial_local.html", study=source.view, row=detail.row, found=found)


def _attribution(source: FigureSource, row: TrialRow, index: int) -> Attribution | None:
    """By a model that may be older than the study: it is learned again no more often than it is worth."""

    study_id, kept = source.view.study_id, source.kept
    model = kept.get(
        (study_id, "model", index),
        source.stamp,
        lambda _: source.reader().surface(index),
        is_final=source.is_final,
    )
    key = (study_id, "local", index, row.number)
    found: Attribution | None = kept.get(
        key,
        model.stamp,
        lambda _: get_attribution(model.value, row),
    ).value
    return found


def _cursor(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})-(\d{1,18})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _by_topic(said: Sequence[Statement]) -> dict[str, list[str]]:
    topics: dict[str, list[str]] = {}
    for one in said:
        topics.setdefault(one.topic, []).append(one.text)
    return topics


def _settings(
    request: Request,
    study: StudyView,
    detail: TrialDetail,
    reasons: TrialReasons,
    best: TrialRow | None,
) -> list[ParamView]:
    database = request.app.state.database
    kinds = get_distributions(database, study.study_id, detail.row.number)
    near = [one.number for one in reasons.proposal.nearest if one.study is None] if reasons.proposal else []
    others = {one.number: one for one in rows_of(database, study.study_id, near)}
    if best is not None:
        others[best.number] = best
    others.pop(detail.row.number, None)
    return [_setting(name, value, kinds[name], others, best) for name, value in detail.row.params.items()]


def _setting(
    name: str,
    value: ParamValue,
    kind: Any,
    others: Mapping[int, TrialRow],
    best: TrialRow | None,
) -> ParamView:
    def at(row: TrialRow) -> float | None:
        return search_space.place(kind, row.params[name]) if name in row.params else None

    marks = [
        RangeMarker(
            number,
            min(1.0, max(0.0, place)),
            best is not None and number == best.number,
        )
        for number, row in others.items()
        if (place := at(row)) is not None
    ]
    own = search_space.place(kind, value)
    choices = list(getattr(kind, "choices", ()))
    return ParamView(
        name,
        value,
        own,
        getattr(kind, "low", None),
        getattr(kind, "high", None),
        bool(getattr(kind, "log", False)),
        choices if len(choices) <= CHOICES_MAX else choices[: CHOICES_MAX - 1],
        sorted(marks, key=lambda mark: mark.is_best),
        None if best is None else best.params.get(name),
    )


def _metrics(study: StudyView, detail: TrialDetail) -> list[str]:
    """What its curve can be drawn of: the first objective, and what else it has."""
    first = study.objectives[0].name
    return [first, *(name for name in detail.row.metrics if name != first)]


def _curve_chart(
    request: Request,
    study: StudyView,
    detail: TrialDetail,
    metric: str,
) -> Chart:
    database, number, total = (
        request.app.state.database,
        detail.row.number,
        study.counts.total,
    )
    reasons = get_trial_reasons(database, study, detail)
    best = [row.number for row in list_best_trials(database, study.study_id, limit=1)]
    near = [one.number for one in reasons.proposal.nearest if one.study is None] if reasons.proposal else []
    compared = [one.number for judgement in reasons.judgements for one in judgement.comparators]
    even = [round(i * (total - 1) / PEERS) for i in range(PEERS + 1)] if total else []
    wanted = dict.fromkeys((number, *best, *near, *compared, *even))
    points = max(20, 6_000 // max(len(wanted), 1))
    found = get_curves(database, study.study_id, numbers=list(wanted), max_points=points)
    objective = study.objectives[0]
    if metric in detail.row.metrics:
        objective = replace(objective, name=metric)
        found = tuple(curve.of(metric) for curve in found)
    curves = {curve.trial_number: curve for curve in found}
    own = curves.pop(number, ReportCurve(number, ()))
    groups = {
        kind: _taken(curves, numbers) for kind, numbers in (("best", best), ("compared", compared), ("nearest", near))
    }
    return charts.peer_curves(
        objective,
        own,
        {**groups, "others": list(curves.values())},
        total,
    )


def _taken(curves: dict[int, ReportCurve], numbers: Sequence[int]) -> list[ReportCurve]:
    return [curves.pop(number) for number in dict.fromkeys(numbers) if number in curves]
