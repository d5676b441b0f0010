"""The page for a new study: an editor with live validation and preview.

Creating a study stores it, but does not run it. `spec` reads the text without importing user code:
it only checks that the entrypoint's file exists and defines the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import StudyExists, StudyNotFound, StudyWithoutSpec
from tunesvc.preview import Preview, describe_cost, describe_size, preview
from tunesvc.queries.rows import StudyView
from tunesvc.queries.studies import get_study, list_studies, list_study_names
from tunesvc.runtime.run_study import StudySource, create
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec import StudySpec
from tunesvc.spec.diagnostics import LocatedIssue
from tunesvc.spec.starter import Template, templates
from tunesvc.spec.yaml.document import examine, renamed, written
from tunesvc.web.access import Creator, User, viewable_studies
from tunesvc.web.account_access import project_for_study, projects_for_studies
from tunesvc.web.pages.dependencies import AskedStudy, viewable
from tunesvc.web.render import attachment, page

router = APIRouter()

SAMPLES = 5
FAULTS_MAX = 100

Text = Annotated[str, Form()]
Folder = Annotated[str, Form(max_length=4096)]


@dataclass(frozen=True, slots=True)
class SpecVerdict:
    """Result of checking a text."""

    spec: StudySpec | None
    """None if the text is not a valid study on any machine."""
    faults: Sequence[LocatedIssue]
    """Issues with lines."""
    problems: Sequence[str]
    """Issues without a line."""
    preview: Preview | None
    size: str
    cost: Sequence[str]

    @property
    def is_fine(self) -> bool:
        """True if the study can be created."""
        return self.spec is not None and not self.faults and not self.problems


@router.get("/new", name="new_page")
def new_page(
    request: Request,
    user: Creator,
    template: Annotated[str, Query(max_length=40)] = "empty",
    copy: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> HTMLResponse:
    """Render the editor with a template or a copy of a study."""
    database: Database = request.app.state.database
    here = str(Path.cwd()) if _owns(user) else ""
    if copy is None:
        by_key = {one.key: one for one in templates()}
        selected = by_key.get(template, templates()[0])
        text = _with_free_name(database, selected)
        return _editor(request, user, text, here, selected.key)
    study = viewable(request, copy)
    text = renamed(_source(study), _free_name(database, study.name))
    return _editor(
        request,
        user,
        text,
        study.source_dir or here,
        copied=study,
    )


@router.post("/new/check", name="check_new")
def check_new(
    request: Request,
    user: Creator,
    text: Text = "",
    folder: Folder = "",
) -> HTMLResponse:
    """Render the issues of a text, or its preview, as a part of the page."""
    verdict = _judged(request, user, _lines(text), folder)
    return page(request, "new_verdict.html", verdict=verdict)


@router.post("/new/download", name="download_new")
def download_new(_: Creator, text: Text = "") -> Response:
    """Return the text as a file."""
    return _file(_lines(text), "study")


@router.post("/new", name="create_new")
def create_new(
    request: Request,
    user: Creator,
    text: Text = "",
    folder: Folder = "",
    project: Annotated[str, Form(max_length=400)] = "",
) -> Response:
    """Store the study and show how to run it; or render the editor again with the issues."""
    text = _lines(text)
    database = request.app.state.database
    verdict = _judged(request, user, text, folder)
    if verdict.spec is None or not verdict.is_fine:
        return _editor(request, user, text, folder, verdict=verdict, status=422)
    try:
        record = create(
            database,
            verdict.spec,
            StudySource(text, str(Path(folder.strip()).resolve()) if _owns(user) else None),
            owner=user.name,
            project=project_for_study(request, user, project or None),
        )
    except StudyExists as error:  # created by another request in the meantime
        faults = SpecVerdict(verdict.spec, (), (str(error),), None, "", ())
        return _editor(request, user, text, folder, verdict=faults, status=409)
    return RedirectResponse(request.url_for("start_page", study_id=record.study_id), 303)


@router.get("/studies/{study_id}/start", name="start_page")
def start_page(request: Request, study: AskedStudy) -> HTMLResponse:
    """Render how to run a stored study."""
    return page(request, "start.html", study=study, command=study.resume_command)


@router.get("/studies/{study_id}/study.yaml", name="study_file")
def study_file(study: AskedStudy) -> Response:
    """Return the original text of the study's file."""
    return _file(_source(study), study.name)


def _owns(user: User) -> bool:
    """Return True if the machine is the user's own; others learn nothing of its folders."""
    return user.account is None or user.account.is_admin


def _judged(request: Request, user: User, text: str, folder: str) -> SpecVerdict:
    among = viewable_studies(request, user)
    return judge(request.app.state.database, text, folder if _owns(user) else None, among)


def judge(
    database: Database,
    text: str,
    folder: str | None,
    among: StudyScope,
) -> SpecVerdict:
    """Read a text and look ahead; it may learn from studies that the user may view.

    Args:
        database: Database of the studies.
        text: The study file.
        folder: Folder on this machine from which the study is run; None to look into none.
        among: Studies that the user may view.
    """
    where, problems = (None, list[str]()) if folder is None else _folder(folder)
    _, faults = examine(text, folder=where, extra_check=option_issues)
    spec, _ = examine(text)  # the others do not stand in the way of looking ahead
    if spec is None:
        return SpecVerdict(None, faults[:FAULTS_MAX], problems, None, "", ())
    problems = [*problems, *_problems(database, spec, among)]
    seen = preview(spec, samples=SAMPLES)
    return SpecVerdict(
        spec,
        faults,
        problems,
        seen,
        describe_size(spec, seen),
        tuple(describe_cost(spec, seen.cost)),
    )


def _folder(folder: str) -> tuple[Path | None, list[str]]:
    """Return the folder in which the study runs, or None with the problem."""
    if not folder.strip():
        where = "where its entrypoint or command is found"
        return None, [f"Name the folder from which the study is run: {where}."]
    path = Path(folder.strip())
    with suppress(OSError, ValueError):
        if path.is_absolute() and path.is_dir():
            return path, []
    text = f"There is no folder {folder.strip()!r} on this machine: write its whole path."
    return None, [
        f"{text} To run the study elsewhere, download the file and use `tune run` there.",
    ]


def _problems(
    database: Database,
    spec: StudySpec,
    among: StudyScope,
) -> Iterator[str]:
    if spec.name in list_study_names(database, spec.name):
        yield f"A study named {spec.name!r} exists already: give this one another name."
    for earlier in spec.warm_start:
        try:
            get_study(database, earlier, among)
        except StudyNotFound as error:
            yield f"warm_start: {error}"


def _editor(
    request: Request,
    user: User,
    text: str,
    folder: str,
    chosen: str = "",
    *,
    copied: StudyView | None = None,
    verdict: SpecVerdict | None = None,
    status: int = 200,
) -> HTMLResponse:
    database: Database = request.app.state.database
    among = viewable_studies(request, user)
    return page(
        request,
        "new.html",
        status,
        text=text,
        folder=folder,
        chosen=chosen,
        templates=templates(),
        copied=copied,
        is_fresh=verdict is None,
        projects=projects_for_studies(request, user),
        studies=list_studies(database, 100, among=among),
        verdict=verdict or _judged(request, user, text, folder),
    )


def _with_free_name(database: Database, template: Template) -> str:
    """Return a template's text with a name that no study has."""
    spec, _ = examine(template.text)
    if spec is None:
        return template.text
    return renamed(template.text, _free_name(database, spec.name, first=1))


def _free_name(database: Database, name: str, first: int = 2) -> str:
    """Return the first free one of `NAME-2` and so on; with `first` 1 also `NAME` itself."""
    stem = re.sub(r"-\d+$", "", name)[:180]
    taken = set(list_study_names(database, stem, limit=10_000))
    if first == 1 and name not in taken:
        return name
    number = 2
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def _source(study: StudyView) -> str:
    """Return the study's file; for a study started from Python, its spec as a file."""
    if study.source_text is not None:
        return study.source_text
    if study.spec is None:
        raise StudyWithoutSpec(study.name, "it has no study file")
    return written(study.spec)


def _lines(text: str) -> str:
    # Browsers send line ends as CR LF.
    return text.replace("\r\n", "\n")


def _file(text: str, name: str) -> Response:
    return Response(
        text.encode("utf-8", "replace"),
        media_type="application/yaml",
        headers=attachment(name, ".yaml"),
    )
