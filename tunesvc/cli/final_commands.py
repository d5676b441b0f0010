"""Commands on the last stages of a study: `tune best --test`, and apply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesvc.cli import served_final_commands
from tunesvc.cli.chosen_client import chosen_server
from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, ServerUrl, StudyName
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.final_output import no_model, print_model, print_test
from tunesvc.cli.session import run_session

if TYPE_CHECKING:
    from tunesvc.models.model_store import ModelMetadata
    from tunesvc.study import Study


def apply(
    study: StudyName,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train a model; without it, the stored one is shown."),
    ] = False,
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="Train the parameters of this trial, not of the recommended one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for a copy of the model and its preparation."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the model of another study of the same name."),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the recommended trial once more on all data, and store the model with its preparation.

    The preparation is fitted on training and validation part together, the model is trained on them
    and evaluated on the test part. `tunesvc.load_model("STUDY").predict(rows)` uses both, in any
    process that reaches the artifact store or server, or in the folder of `--out`.

    The training is a study of its own, `STUDY:apply`. Ctrl-C stops it cleanly, and the same command
    continues it. A server trains and stores the model of a submitted study, also after Ctrl-C.
    """
    if replace and not train:
        raise typer.BadParameter("--replace is for training: add --train")
    if trial is not None and not train:
        raise typer.BadParameter("--trial is for training: add --train")
    address = chosen_server(server)
    if address is not None:
        served_final_commands.apply_and_print(
            study,
            address,
            train=train,
            trial=trial,
            out=out,
            replace=replace,
            as_json=as_json,
            quiet=quiet,
        )
    elif train:
        options = {"out": out, "replace": replace}
        _train(study, database_url, trial, options, as_json=as_json, quiet=quiet)
    else:
        _show_stored(study, out, database_url, as_json=as_json)


def _show_stored(study: str, out: Path | None, database_url: str | None, *, as_json: bool) -> None:
    from tunesvc import api
    from tunesvc.runtime.finals.model_export import write_folder

    loaded = api.load_study(study, database_url=database_url)
    metadata = loaded.model_metadata
    if metadata is None:
        raise no_model(study)
    if out is not None:
        write_folder(study, out)
    _print_model(loaded, metadata, out, as_json=as_json)


def test_and_print(
    study: str,
    database_url: str | None,
    *,
    again: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate a study's recommended trial on the test part unless that was done, and print it."""
    from tunesvc import api

    loaded = api.load_study(study, database_url=database_url)
    before = loaded.test_result
    result, _ = run_session(
        {study: f"{study} · test part"},
        lambda observers, interrupt: loaded.test(
            again=again,
            observer=observers.each[study],
            interrupt=interrupt,
        ),
        as_json=False,
        quiet=quiet or as_json,
    )
    if result is None:
        _end_interrupted(f"tune best {study} --test")
        return
    is_new = before is None or before.at != result.at
    print_test(result, loaded.best_trial.number, is_new=is_new, as_json=as_json)


def _train(
    study: str,
    database_url: str | None,
    trial: int | None,
    options: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a study's final model, store it, and print what it is."""
    from tunesvc import api

    loaded = api.load_study(study, database_url=database_url)
    model, _ = run_session(
        {study: f"{study} · final model"},
        lambda observers, interrupt: loaded.apply(
            trial,
            **options,
            observer=observers.each[study],
            interrupt=interrupt,
        ),
        as_json=False,
        quiet=quiet or as_json,
    )
    if model is None:
        _end_interrupted(f"tune apply {study} --train")
        return
    _print_model(loaded, model.metadata, options["out"], as_json=as_json)


def _print_model(
    study: Study,
    metadata: ModelMetadata,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what a stored model is."""
    from tunesvc.models.model_store import ModelStore

    uses = study.test_uses if metadata.test is not None else ()
    print_model(metadata, ModelStore.open().address, out, uses, as_json=as_json)


def _end_interrupted(command: str) -> None:
    typer.echo(f"interrupted before the result; `{command}` continues", err=True)
    raise typer.Exit(ExitCode.INTERRUPTED)
