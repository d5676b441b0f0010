"""The command that turns a study into a trained model: apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, StudyName


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
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the recommended trial once more on all data, and store the model with its preparation.

    The preparation is fitted on training and validation part together, the model is trained on them
    and evaluated on the test part. `tunesvc.load_model("STUDY").predict(rows)` uses both, in any
    process that reaches the artifact store, or in the folder of `--out`.

    The training is a study of its own, `STUDY:apply`. Ctrl-C stops it cleanly, and the same command
    continues it.
    """
    from tunesvc.cli import final_commands

    if train:
        final_commands.apply_and_print(
            study, database_url, trial=trial, out=out, as_json=as_json, quiet=quiet
        )
        return
    if trial is not None:
        raise typer.BadParameter("--trial is for training: add --train")
    _show_stored(study, out, database_url, as_json=as_json)


def _show_stored(study: str, out: Path | None, database_url: str | None, *, as_json: bool) -> None:
    from tunesvc import api
    from tunesvc.cli import final_commands
    from tunesvc.models.model_store import ModelStore
    from tunesvc.runtime.finals.model_export import write_folder

    loaded = api.load_study(study, database_url=database_url)
    metadata = ModelStore.open().find(study)
    if metadata is None:
        raise typer.BadParameter(
            f"study {study!r} has no trained model yet: add --train, which trains one"
        )
    if out is not None:
        write_folder(study, out)
    final_commands.print_model(loaded, metadata, out, as_json=as_json)
