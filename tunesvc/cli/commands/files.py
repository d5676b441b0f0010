"""Commands about study files: init, import, validate, preview, schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import chosen_server
from tunesvc.cli.cli_options import DatabaseUrl, Json, StudyFile
from tunesvc.errors import SpecError
from tunesvc.util import formatting

if TYPE_CHECKING:
    from rich.console import RenderableType


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Where to write, made if it is not there; or a Python script with options.",
            metavar="[DIR|SCRIPT]",
        ),
    ] = Path(),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Of a script: file to write; study.yaml beside it by default."
        ),
    ] = None,
) -> None:
    """Write a commented study file and a training function to start from.

    Of a script, its options of argparse, click or typer are read without running it: the study file
    has its command, and parameters with ranges that are guessed from the defaults.
    """
    from tunesvc import spec

    if folder.suffix == ".py":
        _init_of_script(folder, out or folder.with_name("study.yaml"))
        return
    if out is not None:
        raise SpecError("--out is for a script: `tune init script.py --out FILE`")
    written = spec.write_starter(folder)
    for path in written:
        typer.echo(f"wrote {path}")
    study = next(
        (path for path in written if path.suffix in (".yaml", ".yml")),
        folder / "study.yaml",
    )
    typer.echo(f"\ntune run {study}")


def _init_of_script(script: Path, out: Path) -> None:
    from tunesvc.foreign.programs.program_study import study_of_program
    from tunesvc.search.registry.component_check import option_issues

    text, notes = study_of_program(script, out, option_issues)
    if out.exists():
        raise SpecError(f"{out} would be overwritten: name another file by --out")
    out.write_text(text, encoding="utf-8")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"wrote {out}\n\ntune preview {out}")


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A file of another tuner, its address, `script.py:NAME`, or a folder of results.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Study file to write; standard output by default."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="wandb, katib, hydra, determined, nni, syne or ax; recognised by its keys when "
            "left out.",
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            help="What a trial runs, where the file names nothing: `module:function`, or a program "
            "that gets the parameters as options.",
        ),
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option(help="Metric of a folder's trials, small is good; may be repeated."),
    ] = None,
    maximize: Annotated[
        list[str] | None,
        typer.Option(help="The same, large is good."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Script with the `Tuner` or space of a folder's trials; without it the space is "
            "what was tried.",
            metavar="FILE.py[:NAME]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the study that a folder becomes; the folder's by default."),
    ] = None,
    step: Annotated[
        str,
        typer.Option(help="What counts the steps of a folder's curves."),
    ] = "training_iteration",
    database_url: DatabaseUrl = None,
) -> None:
    """Write a study file from a file of another tuner: a sweep of W&B, an Experiment of Katib, a
    search space or experiment of NNI, a configuration of Hydra's Optuna sweeper or of Determined,
    parameters of Ax or Syne Tune, or a script with a `Tuner` of Ray Tune.

    Whatever could not be carried as it was is printed with its line, and is a comment in the study
    file.

    A folder that Ray Tune wrote is stored as a study with its trials and curves, and the study file
    is of a second study, which learns from it.
    """
    from tunesvc.foreign.foreign_study import import_study
    from tunesvc.search.registry.component_check import option_issues

    if out is not None and out.exists():
        raise SpecError(f"{out} would be overwritten: name another file by --out")
    goals = dict.fromkeys(minimize or (), "minimize") | dict.fromkeys(maximize or (), "maximize")
    if Path(source).is_dir():
        request = Path(source), goals, space, program, name, step
        text, left = _import_folder(request, database_url)
    elif goals or space or name:
        raise SpecError("--minimize, --maximize, --space and --name are for a folder of results")
    else:
        text, left = import_study(source, format, program, option_issues)
    for line in left:
        typer.echo(f"note: {line}", err=True)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}\n\ntune validate {out}", err=True)


def _import_folder(
    request: tuple[Path, Mapping[str, str], str | None, str | None, str | None, str],
    database_url: str | None,
) -> tuple[str, Sequence[str]]:
    """Store the trials of a folder; return a study file, and what could not be carried."""
    from tunesvc.api import storage
    from tunesvc.foreign.histories.imported_history import ImportRequest, import_history
    from tunesvc.search.registry.component_check import option_issues

    if database_url is None and (server := chosen_server()):
        text = f"trials are imported into a database, and studies here are of {server}"
        raise typer.BadParameter(f"{text}: give the server's --database-url")
    history = import_history(ImportRequest(*request), option_issues)
    history.store(storage(database_url))
    typer.echo(f"stored {len(history.trials)} trials as study {history.name}", err=True)
    return history.study_text, history.notes


def validate(file: StudyFile, as_json: Json = False) -> None:
    """Check a study file without running anything: every key, and whether the function takes the
    parameters.

    The entrypoint's file is read for mistakes of syntax and for the function's arguments, but not
    imported. A sampler or pruner that is named by `class` is imported and made.
    """
    from tunesvc.runtime.imported_searchers import machine_check
    from tunesvc.spec.yaml.document import load
    from tunesvc.views import terminal

    spec = load(file, machine_check(file.absolute().parent)).spec
    if as_json:
        terminal.print_json(spec)
    else:
        name = terminal.markup(spec.name)
        terminal.out().print(f"{terminal.markup(file)} is fine: study [bold]{name}[/]")


def preview(
    file: StudyFile,
    samples: Annotated[
        int,
        typer.Option("--samples", "-n", min=1, max=1000, help="Configurations to draw."),
    ] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Show sample configurations, the size of the space, and what the budget means."""
    from tunesvc import preview as previews
    from tunesvc.spec.yaml.document import load
    from tunesvc.views import terminal

    spec = load(file).spec
    shown = previews.preview(spec, samples=samples, seed=seed)
    if as_json:
        terminal.print_json({"study": spec.name, **terminal.plain(shown)})
        return
    console = terminal.out()
    size = terminal.markup(previews.describe_size(spec, shown))
    console.print(f"[bold]{terminal.markup(spec.name)}[/]  {size}")
    for line in previews.describe_cost(spec, shown.cost):
        console.print(terminal.markup(line))
    if shown.samples:
        console.print()
        console.print(_samples(shown.samples, console.width))


def _samples(drawn: Sequence[Mapping[str, object]], width: int) -> RenderableType:
    from tunesvc.views import terminal

    names = formatting.names_in(drawn)
    lines = [[_cell(params, name) for name in names] for params in drawn]
    return terminal.fitted(names, lines, width, names)


def _cell(params: Mapping[str, object], name: str) -> str:
    return formatting.parameter(params[name]) if name in params else "–"


def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; standard output by default."),
    ] = None,
) -> None:
    """Print the JSON Schema of study files, for editors."""
    from tunesvc.spec.schema.json_schema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}", err=True)
