"""Routes of studies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError

from tunesvc.client.study_inputs import NewStudy, StudyPatch
from tunesvc.queries.comparison import Fact
from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView
from tunesvc.web.account_access import project_for_study
from tunesvc.web.api.api_requests import (
    After,
    CreatingOnce,
    DeletingStudy,
    Limit,
    SteeringStudy,
    Viewing,
    ViewingStudy,
)
from tunesvc.web.api.idempotency import read_body

router = APIRouter(tags=["studies"])

Text = Annotated[str, Query(max_length=400)]
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_NEW = TypeAdapter(NewStudy)


@dataclass(frozen=True, slots=True)
class TagBody:
    """Tags to add and to remove."""

    add: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NoteBody:
    """A note, which replaces the one before."""

    text: str


@router.get("/studies", response_model=RowPage[StudyRow])
def list_studies(
    asked: Viewing,
    search: Text = "",
    state: Annotated[list[StudyStatus] | None, Query(max_length=20)] = None,
    tag: Annotated[list[str] | None, Query(max_length=50)] = None,
    owner: Annotated[str | None, Query(max_length=200)] = None,
    after: After = "",
    limit: Limit = 100,
) -> Response:
    """List studies, the newest first."""
    page = asked.client.studies.page(
        search=search,
        states=state or (),
        tags=tag or (),
        owner=owner,
        after=after,
        limit=limit,
    )
    return asked.answer(page)


@router.get("/names", response_model=tuple[str, ...])
def list_names(asked: Viewing, prefix: Text = "", limit: Limit = 100) -> Response:
    """List names of studies that begin with a text, the newest first."""
    return asked.answer(asked.client.studies.names(prefix, limit=limit))


def _new_study(
    request: Request,
    content: Annotated[bytes, Depends(read_body)],
    folder: Annotated[
        str | None,
        Query(max_length=4_096, description="For YAML: its folder."),
    ] = None,
    project: Annotated[
        str | None,
        Query(max_length=400, description="For YAML: its project."),
    ] = None,
) -> NewStudy:
    """Read a new study from JSON, or from a study file."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in YAML:
        return NewStudy(content.decode("utf-8", "replace"), folder=folder, project=project)
    try:
        return _NEW.validate_json(content)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


_SPEC = {
    "name": "quadratic",
    "command": ["python", "train.py", "--x", "${x}"],
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"x": {"min": 0.0, "max": 1.0}},
    "budget": {"trials": 50},
}
_FILE = """name: quadratic
command: python train.py --x ${x}
metric: {name: loss, goal: minimize}
parameters: {x: {min: 0.0, max: 1.0}}
budget: {trials: 50}
"""
_NEW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/NewStudy"},
                "example": {"spec": _SPEC},
            },
            "application/yaml": {"schema": {"type": "string"}, "example": _FILE},
        },
    }
}


@router.post("/studies", response_model=StudyView, status_code=201, openapi_extra=_NEW_BODY)
def create_study(asked: CreatingOnce, new: Annotated[NewStudy, Depends(_new_study)]) -> Response:
    """Store a study, given as JSON or as a study file; `/submissions` has servers run one."""
    project = project_for_study(asked.request, asked.user, new.project)
    return asked.carry_out(lambda: asked.client.studies.create(replace(new, project=project)), 201)


@router.get("/studies/{study}", response_model=StudyView)
async def get_study(asked: ViewingStudy) -> Response:
    """Return a study with its spec."""
    return await asked.answer_once(lambda: asked.client.studies.get(asked.study))


_PATCHES: Any = {
    "a larger budget": {"value": {"budget": {"trials": 200}}},
    "a wider range": {"value": {"parameters": {"lr": {"min": 1e-6}}}},
    "all that fit": {"value": {"parallelism": {"trials": None}}},
}


@router.patch("/studies/{study}", response_model=tuple[str, ...])
def change_study(
    asked: SteeringStudy,
    patch: Annotated[StudyPatch, Body(openapi_examples=_PATCHES)],
) -> Response:
    """Change budget, parallelism, priority, space or note, also of a study that runs.

    The answers are sentences, one for each change.
    """
    return asked.carry_out(lambda: asked.client.studies.change(asked.study, patch))


@router.delete("/studies/{study}", response_model=str)
def delete_study(asked: DeletingStudy) -> Response:
    """Delete a study with its trials, logs and checkpoints."""
    return asked.carry_out(lambda: asked.client.studies.delete(asked.study))


@router.post("/studies/{study}/tags", response_model=tuple[str, ...])
def tag_study(asked: SteeringStudy, tags: TagBody) -> Response:
    """Add and remove tags of a study; return the new ones."""
    return asked.carry_out(
        lambda: asked.client.studies.tag(asked.study, add=tags.add, remove=tags.remove)
    )


@router.put("/studies/{study}/note", response_model=str)
def note_study(asked: SteeringStudy, note: NoteBody) -> Response:
    """Replace the note of a study."""
    return asked.carry_out(lambda: asked.client.studies.note(asked.study, note.text))


@router.get("/comparison", response_model=tuple[Fact, ...])
def compare_studies(
    asked: Viewing,
    study: Annotated[list[str], Query(min_length=1, max_length=20)],
) -> Response:
    """Compare results and specs of several studies."""
    return asked.answer(asked.client.studies.compare(study))
