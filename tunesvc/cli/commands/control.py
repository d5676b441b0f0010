"""Commands that send requests to a study: pause, stop, extend, widen, enqueue and so on; and rm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tunesvc.cli.chosen_client import opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, ServerUrl, StudyName, TrialNumber
from tunesvc.util.characters import visible


def pause(
    study: StudyName,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Start no more trials and let the running ones finish. `tune resume` continues."""
    _request(study, "pause", {}, server, database_url, as_json)


def stop(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(help="This trial alone; the study continues.", metavar="TRIAL", min=0),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Stop a study now, or one of its trials. Reports of running trials are kept.

    For a study made through Optuna's API, running trials fail, since their processes may be gone.
    """
    if trial is None:
        _request(study, "stop", {}, server, database_url, as_json)
    else:
        _request(study, "stop_trial", {"number": trial}, server, database_url, as_json)


def extend(
    study: StudyName,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials to add.")] = None,
    wall: Annotated[str | None, typer.Option(help="Time to add, such as `30m` or `2h`.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(min=0.0, help="GPU hours to add.")] = None,
    cost: Annotated[
        float | None,
        typer.Option(min=0.0, help="Cost to add, in the currency of the study's prices."),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Give a study more budget."""
    more: dict[str, Any] = {
        "trials": trials,
        "wall": None if wall is None else _seconds(wall),
        "gpu_hours": gpu_hours,
        "cost": cost,
    }
    more = {name: amount for name, amount in more.items() if amount is not None}
    if not more:
        raise typer.BadParameter("give an amount: --trials, --wall, --gpu-hours or --cost")
    _request(study, "extend", more, server, database_url, as_json)


def parallelism(
    study: StudyName,
    trials: Annotated[
        str,
        typer.Argument(help="Trials at a time, or `all` that fit.", metavar="N"),
    ],
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Change how many trials run at a time. Those that run already finish."""
    if trials != "all" and not trials.isdecimal():
        raise typer.BadParameter(f"{trials!r}: write a number of trials, or `all`")
    _request(
        study,
        "parallelism",
        {"trials": None if trials == "all" else int(trials)},
        server,
        database_url,
        as_json,
    )


def widen(
    study: StudyName,
    changes: Annotated[
        list[str],
        typer.Argument(
            help="A range as NAME=MIN..MAX, either end optional; choices to add as NAME+=VALUE.",
            metavar="NAME=MIN..MAX|NAME+=VALUE",
        ),
    ],
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Widen ranges and add choices, while a study runs or before it is resumed. Its trials are
    kept."""
    _request(
        study,
        "widen",
        {"parameters": parse_widening(changes)},
        server,
        database_url,
        as_json,
    )


def retry(
    study: StudyName,
    trial: TrialNumber,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Run a finished trial's parameters again, as a new trial."""
    _request(study, "retry", {"number": trial}, server, database_url, as_json)


def enqueue(
    study: StudyName,
    params: Annotated[
        list[str] | None,
        typer.Argument(help="Values as NAME=VALUE.", metavar="NAME=VALUE", show_default=False),
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(min=0, help="Use this trial's values, slightly changed."),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Run a trial with these values next. The sampler draws those that are not named."""
    if (near is None) is (not params):
        raise typer.BadParameter("give either values, as NAME=VALUE, or a trial with --near")
    payload: dict[str, Any] = {"near": near}
    if near is None:
        payload = {"params": dict(map(parse_assignment, params or ()))}
    _request(study, "enqueue", payload, server, database_url, as_json)


def rm(
    study: StudyName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete a study with its trials, logs and checkpoints."""
    from tunesvc.views.terminal import out

    with opened_client(database_url, server) as client:
        client.studies.get(study)
        if not yes:
            question = f"Delete {study!r} with all its trials, logs and checkpoints?"
            typer.confirm(question, abort=True)
        out().print(visible(client.studies.delete(study)), markup=False)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse `lr=0.1` into name and value; a value that is not JSON is a string.

    Raises:
        typer.BadParameter: there is no name or no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r}: write NAME=VALUE, such as lr=0.1")
    return name, _value(value)


def parse_widening(changes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse `lr=1e-5..` and `optimizer+=adam` into the argument of `widen`.

    Raises:
        typer.BadParameter: a change has neither form.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for text in changes:
        name, added, value = text.partition("+=")
        if added and name:
            parsed.setdefault(name, {}).setdefault("values", []).append(_value(value))
            continue
        name, equals, ends = text.partition("=")
        low, dots, high = ends.partition("..")
        if not (name and equals and dots and (low or high)):
            raise typer.BadParameter(
                f"{text!r}: write NAME=MIN..MAX, such as lr=1e-5..1, or NAME+=VALUE for a choice",
            )
        change = parsed.setdefault(name, {})
        if low:
            change["min"] = _value(low)
        if high:
            change["max"] = _value(high)
    return parsed


def _value(text: str) -> Any:
    """Parse JSON, or return the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _request(
    study: str,
    kind: str,
    payload: dict[str, Any],
    server: str | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    from tunesvc.views.terminal import out, print_json

    with opened_client(database_url, server) as client:
        answer = client.commands.send(study, kind, payload)
    if as_json:
        print_json({"study": study, "request": kind, "answer": answer})
    else:
        out().print(visible(answer), markup=False)


def _seconds(text: str) -> float:
    from tunesvc.spec.units import parse_duration_s

    try:
        return float(parse_duration_s(text))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"--wall {text!r}: {error}") from None
