"""Routes of what a study has found, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from tunesvc.charts import FigureKind
from tunesvc.client.answers import BestTrials, FigureData, StudyOverview
from tunesvc.models.model_store import StoredModel, require_stored
from tunesvc.queries.confirmation import Confirmation
from tunesvc.queries.explain.explanation import Explanation
from tunesvc.queries.health import Health
from tunesvc.queries.operations.final_results import TestResult, TestUse
from tunesvc.queries.operations.study_diagnosis import Diagnosis
from tunesvc.queries.study_replay import StudyReplay
from tunesvc.queries.trials.population_tree import Schedule
from tunesvc.search.replay import PrunerComparison, ReplayedProposal
from tunesvc.web.api.api_requests import ViewingStudy, unstored_answer
from tunesvc.web.api.trial_routes import NumberOrNone
from tunesvc.web.downloads import model_response
from tunesvc.web.render import attachment

router = APIRouter(prefix="/studies/{study}", tags=["insights"])

Written = Annotated[str, Query(max_length=4_000, description="Written as in a study file.")]


@router.get("/best", response_model=BestTrials)
def get_best(asked: ViewingStudy) -> Response:
    """Return the recommended trial; with several objectives, the Pareto front."""
    return asked.answer(asked.client.insights.best(asked.study))


@router.get("/schedule", response_model=Schedule)
def get_schedule(asked: ViewingStudy, number: NumberOrNone = None) -> Response:
    """Return the parameters along the lineage of the recommended trial, or of a trial."""
    return asked.answer(asked.client.insights.schedule(asked.study, number))


@router.get("/overview", response_model=StudyOverview)
def get_overview(asked: ViewingStudy) -> Response:
    """Return a study with its answer, its newest trials and what to expect."""
    return asked.answer(asked.client.insights.overview(asked.study))


@router.get("/explanation", response_model=Explanation)
def explain(asked: ViewingStudy, number: NumberOrNone = None) -> Response:
    """Explain a study, or one of its trials, in sentences."""
    return asked.answer(asked.client.insights.explain(asked.study, number))


@router.get("/health", response_model=Health)
def get_health(asked: ViewingStudy) -> Response:
    """Return the findings of all health checks, with advice."""
    return asked.answer(asked.client.insights.health(asked.study))


@router.get("/diagnosis", response_model=Diagnosis)
def diagnose(asked: ViewingStudy) -> Response:
    """Return a study's lease, live attempts, waiting trials, requests and failures."""
    return asked.answer(asked.client.insights.diagnose(asked.study))


@router.get("/confirmation", response_model=Confirmation | None)
def get_confirmation(asked: ViewingStudy) -> Response:
    """Return the repeats of the finalists so far; null if they were never repeated."""
    return asked.answer(asked.client.insights.confirmation(asked.study))


FinalTrial = Annotated[
    int | None,
    Query(ge=0, lt=2**31, description="Trial of the final run: null until its model is stored."),
]
Digest = Annotated[
    str,
    Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the archive, in hexadecimal."),
]


@router.get("/test", response_model=TestResult | None)
def get_test_result(asked: ViewingStudy) -> Response:
    """Return the newest result on the test part; null if the study was never evaluated on it."""
    return unstored_answer(asked.client.insights.test_result(asked.study))


@router.get("/test/uses", response_model=tuple[TestUse, ...])
def list_test_uses(asked: ViewingStudy) -> Response:
    """List all uses of the study's test part by studies that the user may see, the first first."""
    return unstored_answer(asked.client.insights.test_uses(asked.study))


@router.get("/model", response_model=StoredModel | None)
def get_model(asked: ViewingStudy, final_trial: FinalTrial = None) -> Response:
    """Return what the stored model is, and the digest of its archive; null if there is none."""
    return unstored_answer(asked.client.insights.model(asked.study, final_trial))


@router.get("/models/{digest}", response_class=StreamingResponse)
def get_model_archive(asked: ViewingStudy, digest: Digest) -> Response:
    """Return the stored model and its preparation as a tar archive with that SHA-256.

    Both are pickled: load them only if you trust the people who may submit this study.
    """
    found = require_stored(asked.study, asked.client.insights.model(asked.study), digest)
    return model_response(found, asked.study)


@router.get("/replay", response_model=StudyReplay)
def replay(asked: ViewingStudy) -> Response:
    """Repeat every decision of a study from what is stored, and compare."""
    return asked.answer(asked.client.insights.replay(asked.study))


@router.get("/replay/pruner", response_model=PrunerComparison)
def replay_pruner(asked: ViewingStudy, pruner: Written) -> Response:
    """Run another pruner on the recorded curves."""
    return asked.answer(asked.client.insights.replay_pruner(asked.study, pruner))


@router.get("/replay/sampler", response_model=tuple[ReplayedProposal, ...])
def replay_sampler(asked: ViewingStudy, sampler: Written) -> Response:
    """Return the proposals of another sampler at each ask of the recorded history."""
    return asked.answer(asked.client.insights.replay_sampler(asked.study, sampler))


@router.get("/figures/{kind}", response_model=FigureData)
def get_figure(
    asked: ViewingStudy,
    kind: FigureKind,
    objective: Annotated[int, Query(ge=0, le=100)] = 0,
    param: Annotated[list[str] | None, Query(max_length=2)] = None,
) -> Response:
    """Return a figure as Plotly's JSON."""
    insights = asked.client.insights
    return asked.answer(insights.figure(asked.study, kind, objective=objective, params=param or ()))


@router.get("/report.html", response_class=HTMLResponse)
def get_report(asked: ViewingStudy) -> Response:
    """Return a study as one self-contained HTML page."""
    page = asked.client.insights.report(asked.study)
    return HTMLResponse(page, headers=attachment(asked.study, ".html"))
