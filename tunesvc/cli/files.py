"""Commands about study files: init, validate, preview, schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.options import Json
from tunesvc.cli.run import StudyFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunesvc.spec import StudySpec


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.", metavar="[DIR]")] = Path(),
) -> None:
    """Write a commented study file and a training function to start from."""
    from tunesvc import spec

    written = spec.write_starter(folder)
    for path in written:
        typer.echo(f"wrote {path}")
    study = next((path for path in written if path.suffix in (".yaml", ".yml")), folder / "study.yaml")
    typer.echo(f"\ntune run {study}")


def validate(file: StudyFile, as_json: Json = False) -> None:
    """Check a study file, sampler and pruner included, without running anything."""
    from tunesvc.assembly import check
    from tunesvc.cli import output
    from tunesvc.spec.document import load

    spec = load(file).spec
    check(spec)
    if as_json:
        output.print_json(spec)
    else:
        output.out().print(f"{output.markup(file)} is fine: study [bold]{output.markup(spec.name)}[/]")


def preview(
    file: StudyFile,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, max=1000, help="Configurations to draw.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Show sample configurations, the size of the space, and what the budget means."""
    from random import Random

    from tunesvc.cli import output
    from tunesvc.space import Space, sample
    from tunesvc.spec.document import load

    spec = load(file).spec
    space = Space(spec.parameters)
    rng = Random(seed)  # noqa: S311 - samples to look at
    drawn = [sample(space, rng) for _ in range(samples)] if spec.parameters else []
    if as_json:
        output.print_json({"study": spec.name, "size": space.size, "samples": drawn, "budget": spec.budget})
        return
    console = output.out()
    console.print(f"[bold]{output.markup(spec.name)}[/]  {output.markup(_size(space.size, len(spec.parameters)))}")
    console.print(output.markup(_budget(spec)))
    if drawn:
        console.print()
        console.print(_samples(drawn, console.width))


def _samples(drawn: Sequence[Mapping[str, object]], width: int) -> RenderableType:
    from tunesvc.cli import output

    names = output.columns_of(drawn)
    lines = [[output.parameter(params[name]) if name in params else "–" for name in names] for params in drawn]
    return output.fitted(names, lines, width, names)


def _size(size: int | None, parameters: int) -> str:
    if parameters == 0:
        return "declares its parameters while it runs"
    return f"{parameters} parameters, " + ("continuous" if size is None else f"{size:,} configurations")


def _budget(spec: StudySpec) -> str:
    from tunesvc.cli.output import duration

    budget, limits, gpus = spec.budget, spec.limits, spec.resources.gpu * spec.resources.workers
    parts = [f"{budget.trials} trials" if budget.trials else ""]
    parts.append(f"{duration(budget.wall)} of wall time" if budget.wall else "")
    parts.append(f"{budget.gpu_hours:g} GPU hours" if budget.gpu_hours else "")
    said = "ends after " + " or ".join(filter(None, parts))
    said += ", whichever comes first" if sum(map(bool, parts)) > 1 else ""
    if gpus and budget.trials:
        said += f"; each trial holds {gpus:g} GPU"
        if limits.wall:
            in_all = budget.trials * gpus * limits.wall / 3600
            said += f" for {duration(limits.wall)} at most, {in_all:.3g} GPU hours in all"
    return said


def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; standard output when left out.")] = None,
) -> None:
    """Print the JSON Schema of study files, for editors."""
    from tunesvc.spec.jsonschema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}", err=True)
