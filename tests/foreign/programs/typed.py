"""A training by typer."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional, Literal
import typer

app = typer.Typer()


class Act(str, Enum):
    relu = "relu"
    tanh = "tanh"


@app.command()
def train(
    data: Path,
    lr: float = typer.Option(1e-3, min=1e-5, max=1e-1),
    hidden: Annotated[int, typer.Option("--hidden-size", "-h", help="units")] = 128,
    act: Act = Act.relu,
    opt: Literal["sgd", "adam"] = "sgd",
    augment: bool = False,
    epochs: int = 10,
    resume: Optional[Path] = None,
    tags: list[str] = typer.Option([]),
):
    typer.echo(f"{data} {lr} {hidden} {act.value} {opt} {augment} {epochs} {resume} {tags}")


@app.command("evaluate")
def ev(path: Path):
    typer.echo(path)


if __name__ == "__main__":
    app()
