"""The page that takes a study's folder or an archive of it, looks ahead, and queues the study.

Two steps: the files are checked as `tune submit` checks them and stored by their digest; then the
study is queued with that digest. What is never queued is deleted after a day.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from tunesvc.artifacts.snapshot import packed
from tunesvc.artifacts.snapshot_files import IGNORED
from tunesvc.artifacts.unpacking import require_inside_name
from tunesvc.artifacts.uploaded_archives import UPLOAD_BYTES_MAX, unpack_upload
from tunesvc.client.local.local_submissions import LocalSubmissions
from tunesvc.db.schema.states import Priority
from tunesvc.errors import ArtifactStoreError, SnapshotError
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec.yaml.document import parse
from tunesvc.web.access import Creator, User, viewable_studies
from tunesvc.web.account_access import project_for_study, projects_for_studies
from tunesvc.web.pages.new import SpecVerdict, judge
from tunesvc.web.pages.uploads.received_form import ReceivedForm
from tunesvc.web.render import page

router = APIRouter(prefix="/new")

STUDY_FILE = "study.yaml"
_FORM_BYTES_MAX = UPLOAD_BYTES_MAX + 10 * 10**6
"""The form has a header for each file."""
_TEXT_BYTES_MAX = 10**6
IGNORED_FOLDERS = tuple(line for line in IGNORED if line.endswith("/") and "*" not in line)
"""Folders that a browser need not send."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A folder that was received and checked."""

    folder: str
    """Its name, for people."""
    text: str
    """Its study file."""
    verdict: SpecVerdict
    digest: str = ""
    """Digest of its snapshot, which is stored; empty if the study cannot be queued."""
    files: int = 0
    bytes: int = 0


@router.get("/upload", name="upload_page")
def upload_page(request: Request, user: Creator) -> HTMLResponse:
    """Render the form."""
    return _page(request, user)


@router.post("/upload", name="receive_upload", max_body_size=_FORM_BYTES_MAX)
async def receive_upload(request: Request, user: Creator) -> HTMLResponse:
    """Take the files, and render what the study would do, or what is wrong with them."""
    root = Path(await run_in_threadpool(tempfile.mkdtemp, prefix="tunesvc-upload-"))
    try:
        form = await _received(request, root)
        return await run_in_threadpool(_examined_page, request, user, form)
    except (SnapshotError, ArtifactStoreError) as error:
        return await run_in_threadpool(_page, request, user, problem=str(error))
    finally:
        await run_in_threadpool(shutil.rmtree, root, ignore_errors=True)


@router.post("/submit", name="submit_upload")
def submit_upload(
    request: Request,
    user: Creator,
    text: Annotated[str, Form()],
    digest: Annotated[str, Form(pattern="^[0-9a-f]{64}$")],
    project: Annotated[str, Form(max_length=400)] = "",
    priority: Annotated[Priority, Form()] = Priority.NORMAL,
) -> Response:
    """Queue a study from the files that were received, and show it."""
    text = text.replace("\r\n", "\n")
    new = NewSubmission(
        parse(text, extra_check=option_issues),
        text,
        digest,
        project=project_for_study(request, user, project or None),
        priority=priority,
    )
    study = _submissions(request, user).submit(new)
    return RedirectResponse(request.url_for("study_page", study_id=study.study_id).path, 303)


async def _received(request: Request, root: Path) -> ReceivedForm:
    form = ReceivedForm(request.headers.get("content-type", ""), root)
    try:
        async for piece in request.stream():
            await run_in_threadpool(form.write, piece)
    finally:
        form.close()
    return form


def _examined_page(request: Request, user: User, form: ReceivedForm) -> HTMLResponse:
    file = form.fields.get("file", "").strip() or STUDY_FILE
    folder, name = _folder_of(form, file)
    try:
        upload = _examined(request, user, folder, name, file)
    except (SnapshotError, ArtifactStoreError) as error:
        problem = _without_root(str(error), folder, name)
        return _page(request, user, file=file, problem=problem)
    return _page(request, user, upload, file=file)


def _folder_of(form: ReceivedForm, file: str) -> tuple[Path, str]:
    """Return the folder that has the study file, and its name."""
    folder = form.files
    if form.archive.is_file():
        if folder.is_dir():
            raise SnapshotError("send a folder or an archive, not both")
        unpack_upload(form.archive, folder)
    elif not folder.is_dir():
        raise SnapshotError("choose the study's folder, or an archive of it")
    name = form.names.get("archive", "")
    if not (folder / file).is_file():  # the folder itself is in the archive, or its name is sent
        inside = [one for one in folder.iterdir() if one.name != "__MACOSX"]
        if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink():
            folder, name = inside[0], name or inside[0].name
    return folder, name or "the folder"


def _examined(request: Request, user: User, folder: Path, name: str, file: str) -> Upload:
    """Check a folder, and store its snapshot if its study could be queued.

    Raises:
        SnapshotError: it has no such study file, or what no snapshot may have.
        ArtifactStoreError: the snapshot cannot be stored.
    """
    text = _study_text(folder, name, file)
    among = viewable_studies(request, user)
    verdict = judge(request.app.state.database, text, str(folder), among)
    if not verdict.is_fine:
        faults = [
            replace(fault, text=_without_root(fault.text, folder, name)) for fault in verdict.faults
        ]
        return Upload(name, text, replace(verdict, faults=faults))
    with packed(folder) as snapshot:
        _submissions(request, user).put_snapshot(snapshot)
    return Upload(name, text, verdict, snapshot.digest, snapshot.files, snapshot.bytes)


def _study_text(folder: Path, name: str, file: str) -> str:
    require_inside_name(file)
    path = folder / file
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        found = sorted(one.name for one in folder.iterdir() if one.suffix in (".yaml", ".yml"))
        remedy = f"name one of {', '.join(found[:5])}" if found else "put the study file there"
        raise SnapshotError(f"there is no {file} in {name}: {remedy}")
    if path.stat().st_size > _TEXT_BYTES_MAX:
        raise SnapshotError(f"{file} is too large for a study file")
    return path.read_text("utf-8", "replace")


def _without_root(text: str, folder: Path, name: str) -> str:
    """Replace the temporary folder in a text by the name that the user knows."""
    return text.replace(f"{folder}/", "").replace(str(folder), name)


def _submissions(request: Request, user: User) -> LocalSubmissions:
    database = request.app.state.database
    return LocalSubmissions(database, user.name, viewable_studies(request, user))


def _page(
    request: Request,
    user: User,
    upload: Upload | None = None,
    *,
    file: str = STUDY_FILE,
    problem: str = "",
) -> HTMLResponse:
    is_refused = problem or (upload is not None and not upload.digest)
    return page(
        request,
        "upload.html",
        422 if is_refused else 200,
        upload=upload,
        file=file,
        problem=problem,
        projects=projects_for_studies(request, user),
        priorities=list(reversed(Priority)),
        ignored=" ".join(IGNORED_FOLDERS),
    )
