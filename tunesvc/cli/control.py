"""Commands that ask something of a study: pause, stop, extend, enqueue, rm."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tunesvc.cli.options import DatabaseUrl, Json, StudyName


def pause(study: StudyName, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Ask for no more trials and let the running ones finish. `tune resume` goes on."""
    _request(study, "pause", {}, database_url, as_json)


def stop(study: StudyName, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """End a study now: running trials are stopped, what they reported is kept."""
    _request(study, "stop", {}, database_url, as_json)


def extend(
    study: StudyName,
    trials: Annotated[int | None, typer.Option(min=1, help="So many trials more.")] = None,
    wall: Annotated[str | None, typer.Option(help="So much time more, such as `30m` or `2h`.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0.0, help="So many GPU hours more.")] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Give a study more budget."""
    more: dict[str, Any] = {"trials": trials, "wall": None if wall is None else _seconds(wall), "gpu_hours": gpu_hours}
    more = {name: amount for name, amount in more.items() if amount is not None}
    if not more:
        raise typer.BadParameter("say by how much: --trials, --wall or --gpu-hours")
    _request(study, "extend", more, database_url, as_json)


def enqueue(
    study: StudyName,
    params: Annotated[list[str], typer.Argument(help="Values as NAME=VALUE.", metavar="NAME=VALUE...")],
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Have a trial with these values run next. What is not named, the sampler draws."""
    _request(study, "enqueue", dict(map(parse_assignment, params)), database_url, as_json)


def rm(
    study: StudyName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete a study with its trials, logs and checkpoints."""
    from tunesvc import api
    from tunesvc.cli.output import clean, out

    api.load_study(study, database_url=database_url)
    if not yes:
        typer.confirm(f"Delete {study!r} with all its trials, logs and checkpoints?", abort=True)
    out().print(clean(api.remove(study, database_url=database_url)), markup=False)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`lr=0.1` as name and value; a value that is no JSON is a string.

    Raises:
        typer.BadParameter: there is no name or no `=`.
    """
    name, found, value = text.partition("=")
    if not found or not name:
        raise typer.BadParameter(f"{text!r}: write NAME=VALUE, such as lr=0.1")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _request(study: str, kind: str, payload: dict[str, Any], database_url: str | None, as_json: bool) -> None:
    from tunesvc import api
    from tunesvc.cli.output import clean, out, print_json

    answer = api.request(study, kind, payload, database_url=database_url)
    if as_json:
        print_json({"study": study, "request": kind, "answer": answer})
    else:
        out().print(clean(answer), markup=False)


def _seconds(text: str) -> float:
    from tunesvc.spec.units import parse_duration_s

    try:
        return float(parse_duration_s(text))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"--wall {text!r}: {error}") from None
