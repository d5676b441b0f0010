"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def complete_study(incomplete: str) -> list[str]:
    """Complete names of studies for the shell; none if the database is unreachable."""
    from tunesvc.client.opened_client import opened_client
    from tunesvc.errors import TuneError

    try:
        with opened_client(None, os.environ.get("TUNE_SERVER"), is_brief=True) as client:
            return list(client.studies.names(incomplete, limit=50))
    except TuneError:
        return []


DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="TUNE_DATABASE_URL",
        help="Postgres database; the embedded one by default.",
        show_default=False,
        show_envvar=True,
    ),
]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="TUNE_SERVER",
        help="Address of a server, instead of a database. Its token is in TUNE_TOKEN.",
        show_default=False,
        show_envvar=True,
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(help="Name of the study.", autocompletion=complete_study, metavar="STUDY"),
]
StudyFile = Annotated[Path, typer.Argument(help="A study file, see `tune init`.", metavar="FILE")]
TrialNumber = Annotated[int, typer.Argument(help="Number of the trial.", metavar="TRIAL", min=0)]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, and nothing else, on standard output."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="List at most this many.")]
Where = Annotated[
    str,
    typer.Option(
        "--where",
        "-w",
        metavar="FILTER",
        help="Only these, such as `lr < 0.01 and optimizer == adam`.",
    ),
]
