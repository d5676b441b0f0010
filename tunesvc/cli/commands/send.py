"""`tune send`: the trials of a stored study to trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl, StudyName

if TYPE_CHECKING:
    from tunesvc.queries.rows import StudyView
    from tunesvc.spec.sections.components import Logger

_PATIENCE_S = 60.0
"""Time without an answer after which a tracker is given up."""
_LOOK_S = 1.0


def send(
    study: StudyName,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            help="mlflow, wandb, tensorboard or `module:Class`; by default the study's `loggers`. "
            "May be repeated.",
            metavar="LOGGER",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="Option of the logger, such as `tracking_uri=http://host:5000`. May be repeated.",
            metavar="NAME=VALUE",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Also send what is new, until the study ends."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(help="Send everything again, for a tracker that has lost its runs."),
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Send the trials of a study to a tracker: a run for each, with parameters, curves and state.

    Sends only what the tracker lacks, so it may be repeated.
    """
    from tunesvc import api
    from tunesvc.runtime.logger_process import LoggerProcess, SendingOrder
    from tunesvc.runtime.named_loggers import require_loggers

    stored = api.load_study(study, database_url=database_url)
    view = stored.view
    loggers = _chosen(view, to or (), _options(option or ()))
    require_loggers(loggers, view.source_dir)
    database = api.shared_database(database_url)
    order = SendingOrder.of(database, view, loggers, again=again, is_command=True)
    process = LoggerProcess(order, lambda note: typer.echo(note, err=True))
    while follow and not process.has_ended and not stored.view.is_at_rest:
        time.sleep(_LOOK_S)
    if not process.end(math.inf, _PATIENCE_S):
        raise typer.Exit(1)


def _chosen(view: StudyView, names: Sequence[str], options: Mapping[str, str]) -> Sequence[Logger]:
    """Return the study's loggers, or those of the names: the study's options, and then these."""
    from tunesvc.spec.sections.components import Logger

    own = () if view.spec is None else view.spec.loggers
    if not names and not own:
        raise typer.BadParameter(f"study {view.name!r} names no `loggers`: say --to mlflow")
    chosen = [logger for logger in own if not names or logger.name in names]
    known = {logger.name for logger in chosen}
    chosen += [Logger(name=name) for name in dict.fromkeys(names) if name not in known]
    return [Logger.model_validate({"name": one.name, **one.options, **options}) for one in chosen]


def _options(written: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in written]
    for name, equals, _ in pairs:
        if not name or not equals or name == "name":
            raise typer.BadParameter(f"--option is NAME=VALUE, not {name!r}")
    return {name: value for name, _, value in pairs}
