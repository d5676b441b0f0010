"""Sends a study with its folder through a client: what `tune submit` and `.submit()` do."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesvc.artifacts.snapshot import packed
from tunesvc.champions.served.served_watch_check import require_served
from tunesvc.client.interface import TuneClient
from tunesvc.client.opened_client import opened_client
from tunesvc.db.schema.states import Priority
from tunesvc.errors import SpecError
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.signatures import name_of
from tunesvc.spec import StudySpec
from tunesvc.util.provenance import provenance_of

if TYPE_CHECKING:
    from tunesvc.db.champions.served_watches import ServedWatch


def send_study(
    client: TuneClient,
    spec: StudySpec,
    folder: Path | None,
    *,
    text: str | None = None,
    priority: Priority = Priority.NORMAL,
    project: str | None = None,
) -> StudyView:
    """Send a folder, unless it is there already, and queue its study; return the study.

    Without a folder, the study's program is one that is installed where workers run.

    Raises:
        SnapshotError: the folder cannot be packed.
        ArtifactStoreError: the snapshot cannot be stored.
        StudyExists: the name is taken.
        SpecError: the study cannot be used.
    """
    return client.submissions.submit(_new(client, spec, folder, text, project, priority))


def send_watch(
    client: TuneClient,
    spec: StudySpec,
    folder: Path | None,
    *,
    text: str | None = None,
    every_s: float | None = None,
    always: bool = False,
    project: str | None = None,
) -> ServedWatch:
    """Send a folder, unless it is there already, and let servers watch the study's family.

    Raises:
        SnapshotError: the folder cannot be packed.
        ArtifactStoreError: the snapshot cannot be stored.
        SpecError: servers cannot watch the study.
    """
    require_served(spec)  # before a large folder is sent
    new = _new(client, spec, folder, text, project)
    return client.submissions.watch(new, every_s=every_s, always=always)


def _new(
    client: TuneClient,
    spec: StudySpec,
    folder: Path | None,
    text: str | None,
    project: str | None,
    priority: Priority = Priority.NORMAL,
) -> NewSubmission:
    digest = None if folder is None else send_folder(client, folder)
    return NewSubmission(
        spec,
        text,
        digest,
        project=project,
        priority=priority,
        provenance=provenance_of(folder or Path.cwd()),
    )


def send_folder(client: TuneClient, folder: Path) -> str:
    """Send the snapshot of a folder, unless it is there already; return its digest.

    Raises:
        SnapshotError, ArtifactStoreError: see `send_study`.
    """
    with packed(folder) as snapshot:
        if not client.submissions.has_snapshot(snapshot.digest):
            client.submissions.put_snapshot(snapshot)
        return snapshot.digest


def submit_function(
    function: Callable[..., Any],
    spec: StudySpec,
    *,
    priority: str = "normal",
    project: str | None = None,
    server: str | None = None,
    database_url: str | None = None,
) -> StudyView:
    """Hand a study of a function to a server, as `send_study` does.

    Raises:
        SpecError: workers could not import the function.
    """
    if priority not in list(Priority):
        raise SpecError(f"priority {priority!r} is none of {', '.join(Priority)}")
    entrypoint, folder = locate(function)
    spec = spec.model_copy(update={"entrypoint": entrypoint})
    if server is None and database_url is None:
        server = os.environ.get("TUNE_SERVER")
    with opened_client(database_url, server) as client:
        return send_study(client, spec, folder, priority=Priority(priority), project=project)


def locate(function: Callable[..., Any]) -> tuple[str, Path | None]:
    """Return the entrypoint of a function, and the folder where workers import it.

    The folder is None for a function that is installed.

    Raises:
        SpecError: it is in no file, or not at its module's top level.
    """
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if not name or "<" in name:
        raise SpecError(
            f"{name_of(function)} is defined inside a function: workers import it by its name, so "
            "put it at the top level of a module"
        )
    if module is None or file is None or not Path(file).is_file():
        raise SpecError(
            f"{name_of(function)} is in no file, as in a notebook, and a server cannot get it: put "
            "it into a module, import it from there and submit that one"
        )
    path = Path(file).resolve()
    if module.__name__ == "__main__":
        _require_guard(path, name)
        return f"{path.name}:{name}", path.parent
    if path.is_relative_to(Path(sysconfig.get_path("purelib")).resolve()):
        return f"{module.__name__}:{name}", None
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    return f"{module.__name__}:{name}", path.parents[depth]


def _require_guard(path: Path, name: str) -> None:
    """Refuse a script that would submit again when a worker imports it."""
    if "__main__" not in path.read_text("utf-8", "replace"):
        raise SpecError(
            f"workers import {name} from {path.name}, which would submit it again: put the call "
            'under `if __name__ == "__main__":`'
        )
