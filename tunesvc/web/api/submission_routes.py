"""Routes of submissions: snapshots of folders, studies that servers run from them, and watches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import unquote

from fastapi import APIRouter, Body, Query, Request
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import Field

from tunesvc.artifacts.snapshot import Snapshot
from tunesvc.client.answers import RequestedFinal
from tunesvc.db.champions.served_watches import ServedWatch
from tunesvc.db.schema.states import Priority
from tunesvc.errors import ArtifactTooLarge, SpecError
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import SNAPSHOT_BYTES_MAX
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import parse
from tunesvc.web.access import Permission
from tunesvc.web.account_access import project_for_study, require_in_project
from tunesvc.web.api.api_requests import Creating, CreatingOnce, SteeringStudy, Viewing

router = APIRouter(tags=["submissions"])

Digest = Annotated[
    str,
    PathParameter(pattern="^[0-9a-f]{64}$", description="SHA-256 of the archive, in hexadecimal."),
]
Files = Annotated[int, Query(ge=0, le=1_000_000, description="Number of files in the archive.")]


@router.get("/snapshots/{digest}", response_model=bool)
def has_snapshot(asked: Creating, digest: Digest) -> Response:
    """Return whether the archive of a folder is stored; if so, it stays for a day."""
    return asked.answer(asked.client.submissions.has_snapshot(digest))


@router.put("/snapshots/{digest}", status_code=204, max_body_size=SNAPSHOT_BYTES_MAX)
async def put_snapshot(
    request: Request,
    asked: Creating,
    digest: Digest,
    files: Files = 0,
) -> Response:
    """Store the archive of a folder, a tar as `tune submit` packs it: the body. Repeatable."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > SNAPSHOT_BYTES_MAX:
        raise ArtifactTooLarge(f"a snapshot may have {SNAPSHOT_BYTES_MAX} bytes, and not {length}")
    with _temporary() as (path, file):
        size = 0
        async for piece in request.stream():
            size += len(piece)
            await run_in_threadpool(file.write, piece)
        await run_in_threadpool(file.flush)
        snapshot = Snapshot(digest, path, size, files)
        await run_in_threadpool(asked.client.submissions.put_snapshot, snapshot)
    return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class SubmissionBody:
    """A study to be run by servers: as a file's text, or as a spec."""

    source_text: str | None = None
    """The study file, YAML."""
    spec: StudySpec | None = None
    """The study; by default what `source_text` says."""
    name: str | None = None
    """Another name than the file's."""
    snapshot: str | None = None
    """Digest of the folder's archive, sent before; without it, the program is installed on
    workers."""
    project: str | None = None
    """Project that it belongs to; by default the only one in which the user may create studies."""
    priority: Priority = Priority.NORMAL
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the study, such as its git commit; shown with it."""


_TEXT = """\
name: bowl
command: [python, train.py, "--x={x}"]
metric: loss
parameters:
  x: {type: float, min: -1, max: 1}
budget: {trials: 20}
"""
_EXAMPLES: Any = {
    "a study file": {
        "value": {"source_text": _TEXT, "snapshot": "ab" * 32, "priority": "high"},
    },
}


@router.post("/submissions", response_model=StudyView, status_code=201)
def submit_study(
    asked: CreatingOnce,
    body: Annotated[SubmissionBody, Body(openapi_examples=_EXAMPLES)],
) -> Response:
    """Queue a study for the next server with room, and return it."""
    project = project_for_study(asked.request, asked.user, body.project)
    new = _submission(body, project)
    return asked.carry_out(lambda: asked.client.submissions.submit(new), 201)


@dataclass(frozen=True, slots=True)
class ConfirmationBody:
    """Number of repeats of the best trials."""

    top: Annotated[int, Field(ge=1, le=1_000)] = 5
    """Number of finalists."""
    repeats: Annotated[int, Field(ge=1, le=1_000)] = 5
    """Repeats of each."""


@router.post("/studies/{study}/confirmation", response_model=StudyView, status_code=201)
def confirm_study(asked: SteeringStudy, body: ConfirmationBody) -> Response:
    """Queue repeats of the best trials with other seeds, and return the study that they are."""
    confirm = asked.client.submissions.confirm
    return asked.carry_out(lambda: confirm(asked.study, top=body.top, repeats=body.repeats), 201)


@dataclass(frozen=True, slots=True)
class TestBody:
    """An evaluation on the test part."""

    again: bool = False
    """Evaluate although a result is recorded; that is recorded as a further use."""


@dataclass(frozen=True, slots=True)
class ApplyBody:
    """A training of the final model."""

    trial: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Trial whose parameters are trained; the recommended one by default."""
    replace: bool = False
    """Store the model also if another study of the same name has one."""


_TEST_EXAMPLES: Any = {
    "once": {"value": {}},
    "once more": {"value": {"again": True}},
}
_APPLY_EXAMPLES: Any = {
    "the recommended trial": {"value": {}},
    "another trial": {"value": {"trial": 17}},
}


@router.post("/studies/{study}/test", response_model=RequestedFinal | None, status_code=201)
def test_study(
    asked: SteeringStudy,
    body: Annotated[TestBody, Body(openapi_examples=_TEST_EXAMPLES)],
) -> Response:
    """Queue the evaluation of the recommended trial on the test part; return the final run.

    Null if a result is recorded already and `again` is false.
    """
    test = asked.client.submissions.test
    return asked.carry_out(lambda: test(asked.study, again=body.again), 201)


@router.post("/studies/{study}/model", response_model=RequestedFinal, status_code=201)
def train_model(
    asked: SteeringStudy,
    body: Annotated[ApplyBody, Body(openapi_examples=_APPLY_EXAMPLES)],
) -> Response:
    """Queue the training of the final model on training and validation part; return the final run.

    Once it has ended, a server stores the model.
    """
    apply = asked.client.submissions.apply
    return asked.carry_out(lambda: apply(asked.study, body.trial, replace=body.replace), 201)


def _submission(body: SubmissionBody, project: str | None) -> NewSubmission:
    spec = body.spec
    if spec is None:
        if body.source_text is None:
            raise SpecError("the study is missing: send `source_text`, its file, or `spec`")
        spec = parse(body.source_text, extra_check=option_issues)
    if body.name is not None:
        spec = StudySpec.model_validate({**spec.model_dump(), "name": body.name})
    return NewSubmission(
        spec,
        body.source_text,
        body.snapshot,
        project=project,
        priority=body.priority,
        provenance=body.provenance,
    )


@dataclass(frozen=True, slots=True)
class WatchBody:
    """A study whose data servers watch: as a file's text, or as a spec."""

    source_text: str | None = None
    """The study file, YAML."""
    spec: StudySpec | None = None
    """The study; by default what `source_text` says."""
    snapshot: str | None = None
    """Digest of the folder's archive, sent before; without it, the program is installed on
    workers."""
    project: str | None = None
    """Project that it belongs to; by default the only one in which the user may create studies."""
    every_s: float | None = None
    """Seconds between two looks; without it a single one, or the interval of the earlier watch."""
    always: bool = False
    """Tune again for each new version of the data, drifted or not."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the study, such as its git commit."""


_WATCHED = """\
name: shop
entrypoint: shop:train
metric: error
parameters:
  C: {min: 0.01, max: 100.0, log: true}
budget: {trials: 40}
data: {source: "s3://bucket/shop.parquet", target: bought}
watch: {on_promote: "https://example.org/deploy"}
"""
_WATCH_EXAMPLES: Any = {
    "every hour": {
        "value": {"source_text": _WATCHED, "snapshot": "ab" * 32, "every_s": 3600},
    },
}
Family = Annotated[
    str, PathParameter(description="Name of the study that is tuned again, with %2F for a slash.")
]


@router.get("/watches", response_model=tuple[ServedWatch, ...])
def list_watches(asked: Viewing) -> Response:
    """List the families that servers watch, by name."""
    return asked.answer(asked.client.submissions.watches())


@router.put("/watches/{family}", response_model=ServedWatch)
def watch_family(
    asked: CreatingOnce,
    family: Family,
    body: Annotated[WatchBody, Body(openapi_examples=_WATCH_EXAMPLES)],
) -> Response:
    """Let servers watch a family, in place of an earlier watch; it looks at once."""
    project = project_for_study(asked.request, asked.user, body.project)
    new = _submission(SubmissionBody(**_study_of(body)), project)
    if new.spec.name != unquote(family):
        raise SpecError(f"the study is named {new.spec.name!r}, and the path {unquote(family)!r}")
    submissions = asked.client.submissions
    return asked.carry_out(lambda: submissions.watch(new, every_s=body.every_s, always=body.always))


@router.delete("/watches/{family}", response_model=ServedWatch)
def unwatch_family(asked: CreatingOnce, family: Family) -> Response:
    """Stop servers from watching a family; return its watch as it was. Its studies continue."""
    name, submissions = unquote(family), asked.client.submissions
    known = {one.family: one for one in submissions.watches()}
    if name in known:
        project_id = known[name].project_id
        require_in_project(asked.request, asked.user, Permission.CREATE, project_id)
    return asked.carry_out(lambda: submissions.unwatch(name))


def _study_of(body: WatchBody) -> dict[str, Any]:
    names = ("source_text", "spec", "snapshot", "provenance")
    return {name: getattr(body, name) for name in names}


@contextmanager
def _temporary() -> Iterator[tuple[Path, BinaryIO]]:
    with tempfile.TemporaryDirectory(prefix="tunesvc-upload-") as folder:
        path = Path(folder) / "snapshot.tar"
        with path.open("wb") as file:
            yield path, file
