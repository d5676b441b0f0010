"""Commands for users' annotations of studies and trials, and the log of their requests: tag,
note, requests."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from tunesvc.cli.chosen_client import opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, Limit, ServerUrl, StudyName
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
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Add and remove tags, and print the current ones. `tune ls --tag TAG` finds studies by
    them."""
    from tunesvc.views.terminal import out, print_json

    with opened_client(database_url, server) as client:
        now = client.studies.tag(study, add=tags or (), remove=remove or (), number=trial)
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
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a note on a study or a trial. `tune show` shows it."""
    with opened_client(database_url, server) as client:
        client.studies.note(study, text, number=trial)


def requests(
    study: StudyName,
    limit: Limit = 50,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the requests to a study, newest first: who asked for what, when, and the answer."""
    from tunesvc.client.paging import rows_of_pages
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        pages = partial(client.commands.page, study)
        rows = list(rows_of_pages(lambda after, most: pages(after=after, limit=most), limit))
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
