"""Commands of the queue of studies that servers run: submit, queue."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesvc.cli.chosen_client import opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, ServerUrl, StudyFile
from tunesvc.util import formatting

if TYPE_CHECKING:
    from rich.table import Table

    from tunesvc.client.interface import TuneClient
    from tunesvc.queries.rows import StudyView
    from tunesvc.service.cluster_shares import StudyShare
    from tunesvc.spec.yaml.document import StudyDocument

PriorityName = Literal["low", "normal", "high", "urgent"]


def submit(
    file: StudyFile,
    priority: Annotated[
        PriorityName,
        typer.Option(help="Order among your studies. An urgent one comes before everyone's."),
    ] = "normal",
    project: Annotated[
        str | None,
        typer.Option(help="Project that it belongs to; your only one by default."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Override the study's name.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Override `budget.trials`.")] = None,
    parallelism: Annotated[
        int | None,
        typer.Option("--parallelism", "-p", min=1, help="Override the number of trials at a time."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Override the study's seed.")] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Show its progress; Ctrl-C leaves it running."),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hand a study to the servers (`tune serve`), which run it from a snapshot of its folder.

    The folder of the file is packed without what `.tuneignore` names and without what no study
    needs, such as `.git` and `.venv`. What changes in it later does not matter to the study.
    """
    from tunesvc.cli.several_studies import Changes, read_all

    (document,) = read_all([file], Changes(trials, parallelism, name, seed))
    with opened_client(database_url, server) as client:
        view = submit_document(client, file, document, priority, project)
        if as_json and not follow:
            _print_json(view)
        elif not as_json and not quiet:
            _print_queued(view)
        if follow:
            from tunesvc.cli.following import follow as follow_studies

            code = follow_studies(client, [view], as_json=as_json, quiet=quiet)
            raise typer.Exit(code)


def submit_document(
    client: TuneClient,
    file: Path,
    document: StudyDocument,
    priority: str = "normal",
    project: str | None = None,
) -> StudyView:
    """Check a study file, send its folder unless it is there already, and queue the study.

    Raises:
        SpecError: the file cannot be used.
        SnapshotError: its folder cannot be packed.
        StudyExists: the name is taken.
    """
    from tunesvc.cli.several_studies import check_options
    from tunesvc.client.sending import send_study
    from tunesvc.db.schema.states import Priority
    from tunesvc.errors import SpecError

    try:
        return send_study(
            client,
            document.spec,
            document.folder,
            text=document.text,
            priority=Priority(priority),
            project=project,
        )
    except SpecError:
        check_options([file])  # knows the line
        raise


def _print_json(view: StudyView) -> None:
    from tunesvc.views import terminal

    terminal.print_json(view)


def _print_queued(view: StudyView) -> None:
    from tunesvc.views import terminal

    name = shlex.quote(view.name)
    place = "" if view.queued is None else f", place {view.queued.position} in the queue"
    snapshot = "" if view.submission is None else (view.submission.snapshot or "")[:12]
    terminal.out().print(
        f"{view.name} is queued{place}, with snapshot {snapshot} of its folder.\n"
        f"A server runs it: `tune show {name}` shows it, `tune stop {name}` stops it.",
        markup=False,
        highlight=False,
    )


def queue(
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List submitted studies that run or wait: what each may use of the cluster, and why no more.

    `soon` is the expected time until a study gets its first slot.
    """
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        shares = client.service.shares()
    if as_json:
        terminal.print_json(shares)
        return
    console = terminal.out()
    if not shares.studies:
        console.print("No study runs or waits. `tune submit FILE` queues one.")
        return
    if shares.total:
        amounts = ", ".join(
            f"{amount:g} {name}" for name, amount in shares.total.items() if name in _SHOWN
        )
        console.print(f"The cluster has {amounts}.")
    console.print(_table(shares.studies, console.width))


_SHOWN = ("CPU", "GPU")


def _table(shares: Sequence[StudyShare], width: int) -> Table:
    from tunesvc.views import terminal

    heads = ["study", "state", "user", "project", "priority", ">trials", "since", ">soon", "why"]
    lines = [
        [
            share.study,
            "waits" if share.is_waiting else "runs",
            share.user,
            share.project,
            str(share.priority),
            f"{share.running} of {'–' if share.slots is None else share.slots}",
            formatting.ago(share.queued_at),
            "" if share.likely_s is None else formatting.duration(share.likely_s),
            share.reason,
        ]
        for share in shares
    ]
    return terminal.fitted(heads, lines, width, spare=("project", "since", "priority"))
