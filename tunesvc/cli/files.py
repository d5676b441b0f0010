"""Commands about study files: init, validate, preview, schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc import words
from tunesvc.cli.options import Json
from tunesvc.cli.run import StudyFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunesvc.preview import Cost, Preview
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
    from tunesvc import preview as ahead
    from tunesvc.cli import output
    from tunesvc.spec.document import load

    spec = load(file).spec
    seen = ahead.preview(spec, samples=samples, seed=seed)
    if as_json:
        output.print_json({"study": spec.name, **output.plain(seen)})
        return
    console = output.out()
    console.print(f"[bold]{output.markup(spec.name)}[/]  {output.markup(_size(spec, seen))}")
    for line in _cost(spec, seen.cost):
        console.print(output.markup(line))
    if seen.samples:
        console.print()
        console.print(_samples(seen.samples, console.width))


def _samples(drawn: Sequence[Mapping[str, object]], width: int) -> RenderableType:
    from tunesvc.cli import output

    names = output.columns_of(drawn)
    lines = [[words.parameter(params[name]) if name in params else "–" for name in names] for params in drawn]
    return output.fitted(names, lines, width, names)


def _size(spec: StudySpec, seen: Preview) -> str:
    if spec.define_by_run:
        return "declares its parameters while it runs"
    size = "continuous" if seen.size is None else f"{seen.size:,} configurations"
    return f"{len(spec.parameters)} parameters, {size}" + (": the budget tries them all" if seen.exhaustible else "")


def _cost(spec: StudySpec, cost: Cost) -> Iterator[str]:
    from tunesvc.words import duration

    budget = spec.budget
    limits = [f"{budget.trials} trials" if budget.trials else ""]
    limits.append(f"{duration(budget.wall)} of wall time" if budget.wall else "")
    limits.append(f"{budget.gpu_hours:g} GPU hours" if budget.gpu_hours else "")
    several = ", whichever comes first" if sum(map(bool, limits)) > 1 else ""
    yield f"ends after {' or '.join(filter(None, limits))}{several}"
    if cost.gpus_per_trial:
        most = "" if cost.gpu_hours is None else f"at most {cost.gpu_hours:.3g} GPU hours: "
        yield f"a trial holds {cost.gpus_per_trial:g} GPU and {cost.cpus_per_trial:g} CPU; {most}{cost.reason}"


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
