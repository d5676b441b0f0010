"""Routes of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse

from tunesvc.client.interface import ExportFormat
from tunesvc.client.log_position import parse_log_position
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.queries.checkpoint_files import KeptCheckpoint, open_checkpoint
from tunesvc.queries.comparison import Fact
from tunesvc.queries.rows import (
    AttemptRow,
    DecisionRow,
    LogRow,
    ReportCurve,
    RowPage,
    TrialDetail,
    TrialRow,
)
from tunesvc.web.api.api_requests import After, Limit, Number, SteeringStudy, ViewingStudy
from tunesvc.web.api.event_streams import log_events
from tunesvc.web.api.service_routes import LastEventId, open_stream
from tunesvc.web.api.study_routes import NoteBody, TagBody
from tunesvc.web.downloads import archive_response
from tunesvc.web.render import attachment

router = APIRouter(prefix="/studies/{study}", tags=["trials"])

Where = Annotated[
    str,
    Query(max_length=4_000, description="Filter, such as `lr < 0.01 and state == complete`."),
]
SortBy = Annotated[
    str,
    Query(max_length=400, description="Name to sort by; `-NAME` begins with the largest."),
]
CheckpointName = Annotated[
    str,
    Path(max_length=100, description="Name of the checkpoint, such as attempt-1-step-9-2."),
]
NumberOrNone = Annotated[int | None, Query(ge=0, lt=2**31, description="Number of a trial.")]
Attempt = Annotated[int | None, Query(ge=1, lt=2**31, description="Only this attempt.")]
MEDIA = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}


@router.get("/trials", response_model=RowPage[TrialRow])
def list_trials(
    asked: ViewingStudy,
    where: Where = "",
    sort: SortBy = "number",
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """List the trials that match a filter."""
    trials = asked.client.trials
    page = trials.page(asked.study, where=where, sort=sort, after=after, limit=limit)
    return asked.answer(page)


@router.get("/count", response_model=int)
def count_trials(asked: ViewingStudy, where: Where = "") -> Response:
    """Count the trials that match a filter."""
    return asked.answer(asked.client.trials.count(asked.study, where=where))


@router.get(
    "/trials.{format}",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {} for kind in MEDIA.values()}}},
)
def export_trials(
    asked: ViewingStudy,
    format: ExportFormat,
    where: Where = "",
    sort: SortBy = "number",
    limit: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
) -> Response:
    """Return the trials that match a filter as CSV, JSON, lines of JSON or Parquet."""
    pieces = asked.client.trials.export(asked.study, format, where=where, sort=sort, limit=limit)
    return StreamingResponse(
        pieces,
        media_type=MEDIA[format],
        headers=attachment(asked.study, f".{format}"),
    )


@router.get("/trials/{number}", response_model=TrialDetail)
def get_trial(asked: ViewingStudy, number: Number) -> Response:
    """Return a trial with its attempts, decisions and attributes."""
    return asked.answer(asked.client.trials.get(asked.study, number))


@router.get("/trials/{number}/curve", response_model=ReportCurve)
def get_curve(asked: ViewingStudy, number: Number) -> Response:
    """Return the reports of a trial by step."""
    return asked.answer(asked.client.trials.curve(asked.study, number))


@router.get("/trials/{number}/logs", response_model=RowPage[LogRow])
def list_logs(
    asked: ViewingStudy,
    number: Number,
    attempt: Attempt = None,
    after: After = "",
    limit: Limit = 1_000,
) -> Response:
    """Return a range of the output of a trial."""
    trials = asked.client.trials
    page = trials.logs(asked.study, number, attempt=attempt, after=after, limit=limit)
    return asked.answer(page)


@router.get("/trials/{number}/logs/stream", response_class=StreamingResponse)
def follow_logs(
    asked: ViewingStudy,
    number: Number,
    attempt: Attempt = None,
    last: LastEventId = "",
) -> Response:
    """Stream the output of a trial as server-sent events, until it has finished.

    `log` has a piece; `end` is the last event. A client continues with `Last-Event-ID`.
    """
    trials, study = asked.client.trials, asked.study
    parse_log_position(last)

    def read(after: str) -> tuple[Sequence[LogRow], bool]:
        with translate_unavailable():
            is_finished = trials.get(study, number).row.is_finished
            rows = trials.logs(study, number, attempt=attempt, after=after, limit=500).rows
            return rows, is_finished

    trials.get(study, number)  # so that a trial that does not exist is an error of its own
    hub, study_id = asked.request.app.state.hub, asked.request.state.study_id
    return open_stream(asked.request, log_events(hub, study_id, read, last, asked.user.account))


@router.post("/trials/{number}/tags", response_model=tuple[str, ...])
def tag_trial(asked: SteeringStudy, number: Number, tags: TagBody) -> Response:
    """Add and remove tags of a trial; return the new ones."""
    studies = asked.client.studies
    return asked.carry_out(
        lambda: studies.tag(asked.study, add=tags.add, remove=tags.remove, number=number)
    )


@router.put("/trials/{number}/note", response_model=str)
def note_trial(asked: SteeringStudy, number: Number, note: NoteBody) -> Response:
    """Replace the note of a trial."""
    studies = asked.client.studies
    return asked.carry_out(lambda: studies.note(asked.study, note.text, number=number))


@router.get("/curves", response_model=RowPage[ReportCurve])
def list_curves(
    asked: ViewingStudy,
    max_points: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """Return the curves of the next `limit` trials, without those that reported nothing."""
    trials = asked.client.trials
    page = trials.curves(asked.study, max_points=max_points, after=after, limit=limit)
    return asked.answer(page)


@router.get("/attempts", response_model=RowPage[AttemptRow])
def list_attempts(asked: ViewingStudy, after: After = "", limit: Limit = 100) -> Response:
    """Return the attempts of the next `limit` trials."""
    return asked.answer(asked.client.trials.attempts(asked.study, after=after, limit=limit))


@router.get("/decisions", response_model=RowPage[DecisionRow])
def list_decisions(asked: ViewingStudy, after: After = "", limit: Limit = 100) -> Response:
    """Return decisions about the study and its trials, the oldest first."""
    return asked.answer(asked.client.trials.decisions(asked.study, after=after, limit=limit))


@router.get("/comparison", response_model=tuple[Fact, ...])
def compare_trials(
    asked: ViewingStudy,
    number: Annotated[
        list[Annotated[int, Query(ge=0, lt=2**31)]],
        Query(min_length=1, max_length=100),
    ],
) -> Response:
    """Compare results, parameters and execution of several trials."""
    return asked.answer(asked.client.trials.compare(asked.study, number))


@router.get("/checkpoint", response_model=KeptCheckpoint)
def get_checkpoint(asked: ViewingStudy, number: NumberOrNone = None) -> Response:
    """Return the best checkpoint of the best trial, or of a trial, with its path on the server."""
    return asked.answer(asked.client.trials.best_checkpoint(asked.study, number))


@router.get("/checkpoints", response_model=tuple[KeptCheckpoint, ...])
def list_checkpoints(asked: ViewingStudy, number: NumberOrNone = None) -> Response:
    """List the kept checkpoints of a trial, oldest first, or of the 200 newest trials."""
    return asked.answer(asked.client.trials.checkpoints(asked.study, number))


@router.get("/trials/{number}/checkpoints/{checkpoint}", response_class=StreamingResponse)
def get_checkpoint_archive(
    asked: ViewingStudy,
    number: Number,
    checkpoint: CheckpointName,
) -> Response:
    """Return the file or folder of a checkpoint as a tar archive."""
    database = asked.request.app.state.database
    view = asked.client.studies.get(asked.study)
    found = open_checkpoint(database, view, number, checkpoint)
    return archive_response(found, view.name, number)
