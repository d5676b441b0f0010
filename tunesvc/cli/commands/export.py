"""Commands that write files: export, report, checkpoint and artifacts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesvc.cli.chosen_client import opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, ServerUrl, StudyName, Where
from tunesvc.cli.commands.show import print_no_trials, texts_of
from tunesvc.util import formatting
from tunesvc.util.characters import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunesvc.queries.checkpoint_files import KeptCheckpoint
    from tunesvc.queries.rows import StudyView

Format = Literal["csv", "parquet", "json"]


def export(
    study: StudyName,
    format: Annotated[
        Format | None,
        typer.Option(
            help="Format; by default the one that --out ends in, else CSV.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write, .csv, .json or .parquet; standard output by default.",
        ),
    ] = None,
    where: Where = "",
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write all trials of a study: a row each, with parameters, values, other metrics, states and
    times (UTC)."""
    selected = _format(format, out)
    with opened_client(database_url, server) as client:
        count = client.trials.count(study, where=where)
        pieces = client.trials.export(study, selected, where=where)
        if out is None:
            sys.stdout.writelines(texts_of(pieces))
            if not count:
                print_no_trials(client.studies.get(study))
            return
        with out.open("wb") as file:
            file.writelines(pieces)
    typer.echo(f"wrote {count} trials to {out}", err=True)


def _format(requested: Format | None, out: Path | None) -> Format:
    """Return the format given by the option or by the file's extension.

    Raises:
        typer.BadParameter: the extension is unknown, or contradicts the option.
    """
    if out is None or not out.suffix:
        if requested == "parquet" and out is None:
            raise typer.BadParameter("Parquet is not text: name a file with --out")
        return requested or "csv"
    named = _ENDINGS.get(out.suffix.lower())
    if named is None:
        raise typer.BadParameter(f"--out {out}: write a file that ends in {', '.join(_ENDINGS)}")
    if requested not in (None, named):
        raise typer.BadParameter(
            f"--out {out} is {named}, and --format is {requested}: leave --format out",
        )
    return named


_ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".parquet": "parquet",
}


def report(
    study: StudyName,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Page to write; STUDY.html by default."),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a study as one self-contained HTML page to share: its results and all figures.

    It loads nothing from anywhere, and prints well.
    """
    if out is not None and out.suffix.lower() not in ("", ".html", ".htm"):
        raise typer.BadParameter(f"--out {out}: a report is a page, so its name must end in .html")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in study).lstrip(".") or "study"
    path = out or Path(f"{safe[:100]}.html")
    with opened_client(database_url, server) as client:
        total = client.studies.get(study).counts.total
        path.write_text(client.insights.report(study), encoding="utf-8")
    typer.echo(f"wrote {path} ({total} trials)")


def checkpoint(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(
            help="A trial's number; without it, the best trial.",
            metavar="TRIAL",
            min=0,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Copy it into this folder.",
            metavar="FOLDER",
            file_okay=False,
        ),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print the path of the best checkpoint of a study's best trial, or of another trial; or copy
    it.

    The best is the one saved at the best value of the metric; `keep` in the study file sets how
    many are kept.
    """
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        best = client.trials.best_checkpoint(study, trial)
        view = client.studies.get(study)
        path = best.path
        if to is not None:
            _require_free(to / path.rpartition("/")[2])
            path = str(
                client.trials.fetch_checkpoint(study, best.trial_number, best.checkpoint, to)
            )
    if as_json:
        terminal.print_json({**terminal.plain(best), "path": path})
    else:
        typer.echo(visible(_describe(view, best)), err=True)
        typer.echo(path)


def _require_free(copy: Path) -> None:
    if copy.exists():
        raise typer.BadParameter(f"{copy} is there already: remove it, or name another folder")


def _describe(view: StudyView, best: KeptCheckpoint) -> str:
    parts = [
        f"trial {best.trial_number}",
        "before its first report" if best.step is None else f"step {best.step}",
    ]
    if best.value is not None:
        parts.append(f"{view.objectives[0].name} = {formatting.number(best.value)}")
    return ", ".join(parts)


def artifacts(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(
            help="A trial's number; without it, all trials (the newest 200).",
            metavar="TRIAL",
            min=0,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Copy them into this folder, as TRIAL/CHECKPOINT/NAME.",
            metavar="FOLDER",
            file_okay=False,
        ),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the checkpoints that are kept of a study or a trial, with their sizes; or copy them.

    `tune checkpoint` prints or copies the best one.
    """
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        rows = client.trials.checkpoints(study, trial)
        for row in rows if to is not None else ():
            folder = Path(str(to), str(row.trial_number), row.checkpoint)
            path = client.trials.fetch_checkpoint(study, row.trial_number, row.checkpoint, folder)
            if not as_json:
                typer.echo(path)
    if as_json:
        terminal.print_json(rows)
    elif not rows:
        terminal.err().print("No checkpoint is kept, or not where this looks for them.")
    elif to is None:
        terminal.out().print(_checkpoints_table(rows))


def _checkpoints_table(rows: Sequence[KeptCheckpoint]) -> RenderableType:
    from tunesvc.views import terminal

    made = terminal.table(">trial", "checkpoint", ">step", ">value", ">size", "place")
    for row in rows:
        made.add_row(
            *terminal.cells(
                str(row.trial_number),
                row.checkpoint,
                "–" if row.step is None else str(row.step),
                formatting.number(row.value),
                formatting.size(row.bytes),
                row.path,
            )
        )
    return made
