"""Commands that give reasons: explain, replay, confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesvc.cli.chosen_client import chosen_server, opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, ServerUrl, StudyName
from tunesvc.cli.exits import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunesvc.queries.confirmation import Confirmation


def explain(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(help="A trial's number; without it, the study.", metavar="TRIAL", min=0),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Explain a study's search, or why a trial has its parameters and why it was stopped or
    kept."""
    from tunesvc.views import study_text, terminal

    with opened_client(database_url, server) as client:
        explanation = client.insights.explain(study, trial)
    if as_json:
        record = terminal.plain(explanation)
        record["said"] = record.pop("statements")  # the key that scripts know
        terminal.print_json(record)
    else:
        terminal.out().print(study_text.explanation(explanation))


def confirm(
    study: StudyName,
    top: Annotated[int, typer.Option(min=1, help="Number of finalists.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of each finalist.")] = 5,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the best trials again with other seeds, and report which is best and with what certainty.

    Finalists are the recommended trial, the one with the best observed value, and the next best
    according to the model. All run with the same new seeds, which the objective gets as
    `trial.seed`, or from `TUNE_SEED`.

    The repeats are a study of their own, `STUDY:confirm`. Ctrl-C stops it cleanly, and the same
    command continues it. With another `--top` or `--repeats` it runs the missing repeats, and
    cancels those that are no longer needed and have not started. A server runs the repeats of a
    submitted study; they continue there after Ctrl-C.
    """
    if chosen_server(server) is not None:
        _confirm_on_server(study, top, repeats, server, as_json=as_json, quiet=quiet)
        return
    from tunesvc import api
    from tunesvc.cli.session import run_session

    loaded = api.load_study(study, database_url=database_url)
    explanation, interrupt = run_session(
        {study: f"{study} · {top} finalists × {repeats}"},
        lambda observers, interrupt: loaded.confirm(
            top,
            repeats,
            observer=observers.each[study],
            interrupt=interrupt,
        ),
        as_json=False,
        quiet=quiet or as_json,
    )
    _print_confirmation(explanation, as_json=as_json)
    if interrupt.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)


def _confirm_on_server(
    study: str,
    top: int,
    repeats: int,
    server: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from tunesvc.cli.following import watch
    from tunesvc.cli.views.summary import code_of_end

    with opened_client(None, server) as client:
        repeated = client.submissions.confirm(study, top=top, repeats=repeats)
        ended = watch(client, [repeated], {}, as_json=False, quiet=quiet or as_json)
        code = code_of_end(ended[repeated.name])
        explanation = client.insights.confirmation(study)
    if explanation is not None:
        _print_confirmation(explanation, as_json=as_json)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _print_confirmation(explanation: Confirmation, *, as_json: bool) -> None:
    from tunesvc.views import study_text, terminal

    if as_json:
        terminal.print_json({**terminal.plain(explanation), "verdict": explanation.verdict})
    else:
        terminal.out().print(study_text.confirmation(explanation))


def replay(
    study: StudyName,
    pruner: Annotated[
        str | None,
        typer.Option(
            help="Replay with this pruner, such as `asha` or `{name: asha, min: 3}`.",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Replay with this sampler, written as in a study file."),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Repeat every decision of a study from what is stored, and compare; or try another sampler or
    pruner.

    Exit code 1 if a decision differs from the recorded one.
    """
    from tunesvc.cli.views import replay_text
    from tunesvc.views import terminal

    if pruner is not None and sampler is not None:
        raise typer.BadParameter("give either --pruner or --sampler")

    def show(result: Any, text: RenderableType) -> None:
        if as_json:
            terminal.print_json(result)
        else:
            terminal.out().print(text)

    with opened_client(database_url, server) as client:
        if pruner is not None:
            comparison = client.insights.replay_pruner(study, pruner)
            show(comparison, replay_text.pruner(pruner, comparison))
        elif sampler is not None:
            proposed = client.insights.replay_sampler(study, sampler)
            show(proposed, replay_text.sampler(sampler, proposed))
        else:
            repeated = client.insights.replay(study)
            show(repeated, replay_text.replayed(repeated))
            counts = (repeated.asks, repeated.prunes, repeated.promotions)
            if any(count.first is not None for count in counts):
                raise typer.Exit(1)
