"""The command that keeps a study's champion fresh: watch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import opened_client, typed_server
from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, StudyFile
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.session import Observers, run_session, title_of

if TYPE_CHECKING:
    from tunesvc.champions.watch_result import WatchResult
    from tunesvc.db.champions.served_watches import ServedWatch
    from tunesvc.spec.yaml.document import StudyDocument


def watch(
    file: StudyFile,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, and end: for cron. The default.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(help="Look again and again, such as `--every 1h`.", metavar="DURATION"),
    ] = None,
    always: Annotated[
        bool,
        typer.Option("--always", help="Tune again for each new version, drifted or not."),
    ] = False,
    project: Annotated[
        str | None,
        typer.Option(help="With --server: project of the study; your only one by default."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Let the servers of this address watch, from a snapshot of the study's folder."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune again when the data of a study have drifted, and promote what is better.

    Without a champion, it runs the study and promotes its recommended trial. Ctrl-C ends it
    cleanly, and the next watch continues.

    With `--server` it hands the watch to the servers there, and ends; `tune champion show` shows
    it, and `tune champion unwatch` removes it.
    """
    from tunesvc.client.sending import send_watch
    from tunesvc.runtime.imported_searchers import machine_check
    from tunesvc.spec.yaml.document import load

    if once and every is not None:
        raise typer.BadParameter("give either --once or --every")
    interval_s = None if every is None else _seconds(every)
    server = server or typed_server()
    if server is not None:
        document = load(file, machine_check(file.absolute().parent))
        with opened_client(None, server) as client:
            served = send_watch(
                client,
                document.spec,
                document.folder,
                text=document.text,
                every_s=interval_s,
                always=always,
                project=project,
            )
        _print_served(served, server, as_json=as_json, quiet=quiet)
        return
    if project is not None:
        raise typer.BadParameter("--project is for --server")

    def look() -> ExitCode:
        document = load(file, machine_check(file.absolute().parent))

        def start(observers: Observers, interrupt: threading.Event) -> WatchResult:
            return _look(document, observers, interrupt, database_url, always=always)

        titles = {document.spec.name: title_of(document.spec)}
        result, interrupt = run_session(titles, start, as_json=as_json, quiet=quiet)
        _print(result, as_json=as_json, quiet=quiet)
        if interrupt.is_set():
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if result.undelivered else ExitCode.DONE

    if interval_s is None:
        raise typer.Exit(look())
    _repeat(look, interval_s)


def _repeat(look: Callable[[], ExitCode], interval_s: float) -> None:
    """Look again and again until Ctrl-C; an error of one look does not prevent the next."""
    import time

    from tunesvc.errors import TuneError
    from tunesvc.views.terminal import print_error

    while True:
        try:
            code = look()
        except TuneError as error:
            print_error(str(error))
            code = ExitCode.FAILED
        try:
            if code is not ExitCode.INTERRUPTED:
                time.sleep(interval_s)
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        if code is ExitCode.INTERRUPTED:
            raise typer.Exit(code)


def _seconds(text: str) -> float:
    from tunesvc.spec.units import parse_duration_s

    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(f"--every: {error}") from None
    if not isinstance(seconds, float) or seconds <= 0:
        raise typer.BadParameter("--every needs a positive duration, such as 1h")
    return seconds


def _look(
    document: StudyDocument,
    observers: Observers,
    interrupt: threading.Event,
    database_url: str | None,
    *,
    always: bool,
) -> WatchResult:
    from tunesvc.champions import champion_functions

    return champion_functions.watch(
        document,
        always=always,
        database_url=database_url,
        observer=observers.whole,
        interrupt=interrupt,
    )


def _print_served(served: ServedWatch, server: str, *, as_json: bool, quiet: bool) -> None:
    from tunesvc.cli.views import watch_text
    from tunesvc.views import terminal

    if as_json:
        terminal.print_json(served)
    elif not quiet:
        watch_text.print_registered(served, server)


def _print(result: WatchResult, *, as_json: bool, quiet: bool) -> None:
    from tunesvc.cli.views import champion_text
    from tunesvc.views.lines import JsonLines
    from tunesvc.views.terminal import plain

    if as_json:
        JsonLines(result.family).write("watched", plain(result))
    elif not quiet:
        champion_text.print_result(result)
