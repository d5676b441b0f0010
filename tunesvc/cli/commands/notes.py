"""Commands for users' annotations of studies and trials, and the log of their requests: tag,
note, requests."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl, Json, Limit, StudyName
from tunesvc.cli.opened_study import opened_study
from tunesvc.util import formatting
from tunesvc.util.characters import visible

OfTrial = Annotated[
    int | None,
    typer.Option("--trial", "-t", min=0, help="About this trial rather than the study."),
]


def tag(
    study: StudyName,
    tags: Annotated[
        list[str] | None,
        typer.Argument(help="Tags to add.", metavar="TAG", show_default=False),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", "-r", help="Tag to remove; may be repeated."),
    ] = None,
    trial: OfTrial = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Add and remove tags, and print the current ones. `tune ls --tag TAG` finds studies by
    them."""
    from tunesvc import api
    from tunesvc.views.terminal import out, print_json

    loaded = api.load_study(study, database_url=database_url)
    now = loaded.tag(*(tags or ()), remove=remove or (), number=trial)
    if as_json:
        print_json({"study": study, "trial": trial, "tags": now})
    else:
        out().print(visible("  ".join(now) or "no tags"), markup=False)


def note(
    study: StudyName,
    text: Annotated[
        str,
        typer.Argument(help="The note; it replaces the one before. Empty: none.", metavar="TEXT"),
    ],
    trial: OfTrial = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a note on a study or a trial. `tune show` shows it."""
    from tunesvc import api

    api.load_study(study, database_url=database_url).note(text, number=trial)


def requests(
    study: StudyName,
    limit: Limit = 50,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the requests to a study, newest first: who asked for what, when, and the answer."""
    from tunesvc.queries.operations.request_log import list_requests
    from tunesvc.views import terminal

    with opened_study(study, database_url) as (database, view):
        rows = list_requests(database, view.study_id, limit=limit)
    if as_json:
        terminal.print_json(rows)
        return
    console = terminal.out()
    heads = ("when", "who", "what", "what came of it")
    lines = [
        (
            formatting.ago(row.asked_at),
            row.asked_by or "–",
            row.text,
            row.answer or ("done" if row.done_at else "waits"),
        )
        for row in rows
    ]
    console.print(terminal.fitted(heads, lines, console.width) if rows else "No requests yet.")
