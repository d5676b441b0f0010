"""The page of a trial: result, reasons, parameters in their ranges, attempts, curve and output.

Its checkpoints have a page of their own, as listing them may take long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse, Response

from tunesvc import charts
from tunesvc.charts import Chart
from tunesvc.errors import ArtifactStoreError
from tunesvc.evaluation.prediction_summary import summary_in
from tunesvc.queries.checkpoint_files import KeptCheckpoint, list_checkpoints, open_checkpoint
from tunesvc.queries.explain.explanation import Statement, describe_trial
from tunesvc.queries.explain.trial_attribution import best_other, get_attribution
from tunesvc.queries.explain.trial_reasons import TrialReasons, get_trial_reasons
from tunesvc.queries.rows import ReportCurve, StudyView, TrialDetail, TrialRow
from tunesvc.queries.trials.attempt_events import get_curves, get_log_end, list_logs
from tunesvc.queries.trials.trial_table import get_distributions, list_best_trials, rows_of
from tunesvc.search.analysis.attribution import Attribution
from tunesvc.space import search_space
from tunesvc.spec import ParamValue
from tunesvc.web.downloads import archive_response
from tunesvc.web.pages.dependencies import AskedStudy, AskedTrial
from tunesvc.web.pages.figures import (
    AskedSource,
    FigureSource,
    answer_chart,
    answer_csv,
    answer_table,
)
from tunesvc.web.render import page, wants_fragment

router = APIRouter()

PEERS = 60
"""Approximate number of other trials' curves around one."""
OBJECTIVES_MAX = 4
"""Most objectives for which parameters' effects are shown."""
CHOICES_MAX = 12
"""Most listed choices of a parameter."""

MetricName = Annotated[str, Query(alias="metric", max_length=400)]


@dataclass(frozen=True, slots=True)
class RangeMarker:
    """Position of another trial in a parameter's range."""

    number: int
    at: float
    """Between 0 and 1."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class ParamView:
    """One parameter of a trial in its range."""

    name: str
    value: ParamValue
    at: float | None
    """Position in its range, between 0 and 1; None for a choice."""
    low: float | None
    high: float | None
    is_log: bool
    choices: Sequence[ParamValue]
    """Choices; empty for a number."""
    marks: Sequence[RangeMarker]
    """The best trial and the nearest ones, of a numeric parameter."""
    best: ParamValue
    """The best trial's value; None if it has none."""


@router.get("/studies/{study_id}/trials/{number}", name="trial_page")
def trial_page(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
) -> HTMLResponse:
    """Render the page; for htmx, only its live parts."""
    database = request.app.state.database
    reasons = get_trial_reasons(database, study, detail)
    best_rows = list_best_trials(database, study.study_id, limit=1)
    best = best_rows[0] if best_rows else None
    return page(
        request,
        "trial_live.html" if wants_fragment(request) else "trial.html",
        study=study,
        detail=detail,
        row=detail.row,
        reasons=reasons,
        statements=_by_topic(describe_trial(study, detail, reasons)),
        best=best,
        settings=_param_views(request, study, detail, reasons, best),
        metrics=_metrics(study, detail),
        has_predictions=summary_in(detail.system_attrs, study.objectives[0].step) is not None,
        is_open=not detail.row.is_finished,
    )


@router.get("/studies/{study_id}/trials/{number}/curve", name="trial_curve")
def trial_curve(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> Response:
    """Return the trial's curve among its peers as a figure."""
    return answer_chart(request, _curve_chart(request, study, detail, metric))


@router.get("/studies/{study_id}/trials/{number}/curve/table", name="trial_curve_table")
def trial_curve_table(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> HTMLResponse:
    """Render the figure's data as a table."""
    return answer_table(request, _curve_chart(request, study, detail, metric), study)


@router.get("/studies/{study_id}/trials/{number}/curve/data.csv", name="trial_curve_csv")
def trial_curve_csv(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    metric: MetricName = "",
) -> Response:
    """Return the figure's data as CSV."""
    chart = _curve_chart(request, study, detail, metric)
    return answer_csv(chart, f"{study.name}-{detail.row.number}-curve")


@router.get("/studies/{study_id}/trials/{number}/predictions", name="trial_predictions")
def trial_predictions(request: Request, study: AskedStudy, detail: AskedTrial) -> Response:
    """Return the predictions of the trial's models as a figure."""
    return answer_chart(request, _predictions_chart(study, detail))


@router.get("/studies/{study_id}/trials/{number}/predictions/table", name="trial_predictions_table")
def trial_predictions_table(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
) -> HTMLResponse:
    """Render the figure's data as a table."""
    return answer_table(request, _predictions_chart(study, detail), study)


@router.get(
    "/studies/{study_id}/trials/{number}/predictions/data.csv", name="trial_predictions_csv"
)
def trial_predictions_csv(study: AskedStudy, detail: AskedTrial) -> Response:
    """Return the figure's data as CSV."""
    chart = _predictions_chart(study, detail)
    return answer_csv(chart, f"{study.name}-{detail.row.number}-predictions")


@router.get("/studies/{study_id}/trials/{number}/logs", name="trial_logs")
def trial_logs(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    before: Annotated[str, Query(max_length=60)] = "",
    after: Annotated[str, Query(max_length=60)] = "",
) -> HTMLResponse:
    """Render the end of the trial's output, or the part before or after a position."""
    database = request.app.state.database
    number = detail.row.number
    if after:
        rows = list_logs(
            database,
            study.study_id,
            number,
            after=_cursor(after),
            limit=500,
        )
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
def trial_local(
    request: Request,
    detail: AskedTrial,
    source: AskedSource,
    against: Literal["best", "average"] = "best",
) -> HTMLResponse:
    """Render each parameter's effect on every objective, against the best or the average trial.

    The model is cached for all trials.
    """
    best = best_other(request.app.state.database, source.view, detail.row.number)
    other = None if against == "average" else best
    found = []
    for index, objective in enumerate(source.view.objectives[:OBJECTIVES_MAX]):
        found.append((objective, _attribution(source, detail.row, index, other)))
    return page(
        request,
        "trial_local.html",
        study=source.view,
        row=detail.row,
        found=found,
        best=best,
        other=other,
    )


def _attribution(
    source: FigureSource,
    row: TrialRow,
    index: int,
    other: TrialRow | None,
) -> Attribution | None:
    # The model may be older than the study, as the cache refreshes expensive values less often.
    study_id = source.view.study_id
    cache = source.cache
    model = cache.get(
        (study_id, "model", index),
        source.stamp,
        lambda _: source.reader().surface(index),
        is_final=source.is_final,
    )
    key = (study_id, "local", index, row.number, other and other.number)
    found: Attribution | None = cache.get(
        key,
        model.stamp,
        lambda _: get_attribution(model.value, row, other),
    ).value
    return found


def _cursor(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})-(\d{1,18})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _by_topic(statements: Sequence[Statement]) -> dict[str, list[str]]:
    topics: dict[str, list[str]] = {}
    for one in statements:
        topics.setdefault(one.topic, []).append(one.text)
    return topics


def _nearest_of(reasons: TrialReasons) -> list[int]:
    """Return the numbers of the nearest trials of the same study."""
    if reasons.proposal is None:
        return []
    return [one.number for one in reasons.proposal.nearest if one.study is None]


def _param_views(
    request: Request,
    study: StudyView,
    detail: TrialDetail,
    reasons: TrialReasons,
    best: TrialRow | None,
) -> list[ParamView]:
    database = request.app.state.database
    distributions = get_distributions(database, study.study_id, detail.row.number)
    near = rows_of(database, study.study_id, _nearest_of(reasons))
    others = {one.number: one for one in near}
    if best is not None:
        others[best.number] = best
    others.pop(detail.row.number, None)
    params = detail.row.params.items()
    return [
        _param_view(
            name,
            value,
            distributions[name],
            others,
            best,
        )
        for name, value in params
    ]


def _param_view(
    name: str,
    value: ParamValue,
    distribution: Any,
    others: Mapping[int, TrialRow],
    best: TrialRow | None,
) -> ParamView:
    marks = []
    for number, row in others.items():
        if name not in row.params:
            continue
        at = search_space.place(distribution, row.params[name])
        if at is not None:
            is_best = best is not None and number == best.number
            marks.append(RangeMarker(number, min(1.0, max(0.0, at)), is_best))
    choices = list(getattr(distribution, "choices", ()))
    return ParamView(
        name,
        value,
        search_space.place(distribution, value),
        getattr(distribution, "low", None),
        getattr(distribution, "high", None),
        bool(getattr(distribution, "log", False)),
        choices if len(choices) <= CHOICES_MAX else choices[: CHOICES_MAX - 1],
        sorted(marks, key=lambda mark: mark.is_best),
        None if best is None else best.params.get(name),
    )


def _metrics(study: StudyView, detail: TrialDetail) -> list[str]:
    """Return the metrics of its curve: the first objective, then all others."""
    first = study.objectives[0].name
    return [first, *(name for name in detail.row.metrics if name != first)]


def _curve_chart(
    request: Request,
    study: StudyView,
    detail: TrialDetail,
    metric: str,
) -> Chart:
    database = request.app.state.database
    number = detail.row.number
    total = study.counts.total
    reasons = get_trial_reasons(database, study, detail)
    best = [row.number for row in list_best_trials(database, study.study_id, limit=1)]
    near = _nearest_of(reasons)
    compared: list[int] = []
    for judgement in reasons.judgements:
        compared += [one.number for one in judgement.comparators]
    even = [round(i * (total - 1) / PEERS) for i in range(PEERS + 1)] if total else []
    numbers = list(dict.fromkeys((number, *best, *near, *compared, *even)))
    max_points = max(20, 6_000 // len(numbers))
    found = get_curves(
        database,
        study.study_id,
        numbers=numbers,
        max_points=max_points,
    )
    objective = study.objectives[0]
    if metric in detail.row.metrics:
        objective = replace(objective, name=metric)
        found = tuple(curve.of(metric) for curve in found)
    curves = {curve.trial_number: curve for curve in found}
    own = curves.pop(number, ReportCurve(number, ()))
    # Each curve belongs to the first group that it is in.
    groups = {
        "best": _pop_all(curves, best),
        "compared": _pop_all(curves, compared),
        "nearest": _pop_all(curves, near),
        "others": list(curves.values()),
    }
    return charts.peer_curves(objective, own, groups, total)


def _predictions_chart(study: StudyView, detail: TrialDetail) -> Chart:
    summary = summary_in(detail.system_attrs, study.objectives[0].step)
    if summary is None:
        reason = "No model of this trial was scored: `evaluation: {scoring: ...}` does that."
        return Chart("Its predictions", None, reason)
    return charts.predictions(summary)


def _pop_all(curves: dict[int, ReportCurve], numbers: Sequence[int]) -> list[ReportCurve]:
    return [curves.pop(number) for number in dict.fromkeys(numbers) if number in curves]


# --- checkpoints ---------------------------------------------------------------------------------


@router.get("/studies/{study_id}/trials/{number}/checkpoints", name="checkpoints_page")
def checkpoints_page(request: Request, study: AskedStudy, detail: AskedTrial) -> HTMLResponse:
    """Render the page. A store that does not answer is a message on it."""
    problem = ""
    rows: tuple[KeptCheckpoint, ...] = ()
    try:
        rows = list_checkpoints(request.app.state.database, study, detail.row.number)
    except ArtifactStoreError as error:
        problem = str(error)
    return page(
        request,
        "checkpoints.html",
        study=study,
        row=detail.row,
        rows=rows,
        problem=problem,
        saved=any(attempt.checkpoint for attempt in detail.attempts),
    )


@router.get(
    "/studies/{study_id}/trials/{number}/checkpoints/{checkpoint}",
    name="checkpoint_archive",
)
def checkpoint_archive(
    request: Request,
    study: AskedStudy,
    detail: AskedTrial,
    checkpoint: Annotated[str, Path(max_length=100)],
) -> Response:
    """Return a checkpoint as a tar archive."""
    database, number = request.app.state.database, detail.row.number
    return archive_response(
        open_checkpoint(database, study, number, checkpoint), study.name, number
    )
