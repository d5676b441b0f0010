"""Commands about study files: init, import, validate, preview, schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.cli_options import Json, StudyFile
from tunesvc.util import formatting

if TYPE_CHECKING:
    from rich.console import RenderableType


def init(
    folder: Annotated[
        Path,
        typer.Argument(help="Where to write; made if it is not there.", metavar="DIR"),
    ] = Path(),
) -> None:
    """Write a commented study file and a training function to start from."""
    from tunesvc import spec

    written = spec.write_starter(folder)
    for path in written:
        typer.echo(f"wrote {path}")
    study = next(
        (path for path in written if path.suffix in (".yaml", ".yml")),
        folder / "study.yaml",
    )
    typer.echo(f"\ntune run {study}")


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A file of another tuner, its address, or `script.py:NAME`.",
            metavar="FILE_OR_URL",
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
) -> None:
    """Write a study file from a file of another tuner: a sweep of W&B, an Experiment of Katib, a
    search space or experiment of NNI, a configuration of Hydra's Optuna sweeper or of Determined,
    parameters of Ax or Syne Tune, or a script with a `Tuner` of Ray Tune.

    Whatever could not be carried as it was is printed with its line, and is a comment in the study
    file.
    """
    from tunesvc.errors import SpecError
    from tunesvc.foreign.foreign_study import import_study
    from tunesvc.search.registry.component_check import option_issues

    text, left = import_study(source, format, program, option_issues)
    if out is not None and out.exists():
        raise SpecError(f"{out} would be overwritten: name another file by --out")
    for line in left:
        typer.echo(f"note: {line}", err=True)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}\n\ntune validate {out}", err=True)


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
