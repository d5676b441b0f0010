"""Commands about study files: init, validate, preview, schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc import words
from tunesvc.cli.options import Json, StudyFile

if TYPE_CHECKING:
    from rich.console import RenderableType


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.", metavar="DIR")] = Path(),
) -> None:
    """Write a commented study file and a training function to start from."""
    from tunesvc import spec

    written = spec.write_starter(folder)
    for path in written:
        typer.echo(f"wrote {path}")
    study = next((path for path in written if path.suffix in (".yaml", ".yml")), folder / "study.yaml")
    typer.echo(f"\ntune run {study}")


def validate(file: StudyFile, as_json: Json = False) -> None:
    """Check a study file without running anything: every key, and whether the function takes the parameters.

    The entrypoint's file is read for mistakes of syntax and for the function's arguments, but not imported.
    """
    from tunesvc.search.check import option_faults
    from tunesvc.spec.document import load
    from tunesvc.views import output

    spec = load(file, option_faults).spec
    if as_json:
        output.print_json(spec)
    else:
        output.out().print(f"{output.markup(file)} is fine: study [bold]{output.markup(spec.name)}[/]")


def preview(
    file: StudyFile,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, max=1000, help="Configurations to draw.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Show sample configurations, the size of the space, and what the budget means."""
    from tunesvc import preview as ahead
    from tunesvc.spec.document import load
    from tunesvc.views import output

    spec = load(file).spec
    seen = ahead.preview(spec, samples=samples, seed=seed)
    if as_json:
        output.print_json({"study": spec.name, **output.plain(seen)})
        return
    console = output.out()
    console.print(f"[bold]{output.markup(spec.name)}[/]  {output.markup(ahead.told_size(spec, seen))}")
    for line in ahead.told_cost(spec, seen.cost):
        console.print(output.markup(line))
    if seen.samples:
        console.print()
        console.print(_samples(seen.samples, console.width))


def _samples(drawn: Sequence[Mapping[str, object]], width: int) -> RenderableType:
    from tunesvc.views import output

    names = output.columns_of(drawn)
    lines = [[words.parameter(params[name]) if name in params else "–" for name in names] for params in drawn]
    return output.fitted(names, lines, width, names)


def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; standard output by default.")] = None,
) -> None:
    """Print the JSON Schema of study files, for editors."""
    from tunesvc.spec.jsonschema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}", err=True)
