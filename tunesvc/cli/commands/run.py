"""Commands that run studies: run and resume."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import chosen_server, opened_client, typed_server
from tunesvc.cli.cli_options import DatabaseUrl, Json, Quiet, ServerUrl, complete_study
from tunesvc.cli.commands.submit import submit_document
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.session import Observers, run_session, title_of
from tunesvc.util.characters import visible

if TYPE_CHECKING:
    from tunesvc.coordinator.progress_events import Observer
    from tunesvc.execution.driver.ray_pool import RayPool
    from tunesvc.spec.yaml.document import StudyDocument
    from tunesvc.study import Study

Run = Callable[["Observer", threading.Event], "Study"]
"""A function that runs one study until it has finished or is interrupted."""

BesideDashboard = Annotated[
    bool,
    typer.Option("--dashboard", help="Show the run in the browser too."),
]
StudyFiles = Annotated[
    list[Path],
    typer.Argument(help="Study files, see `tune init`.", metavar="FILE"),
]
StudyNames = Annotated[
    list[str],
    typer.Argument(help="Names of studies.", autocompletion=complete_study, metavar="STUDY"),
]


def run(
    files: StudyFiles,
    trials: Annotated[int | None, typer.Option(min=1, help="Override `budget.trials`.")] = None,
    parallelism: Annotated[
        int | None,
        typer.Option(
            "--parallelism",
            "-p",
            min=1,
            help="Override the number of trials at a time.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Override the study's name; for one file only."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Override the study's seed.")] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(
            help="Train by this schedule, which `tune best --schedule` prints; the study is "
            "NAME-schedule, unless --name is given.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue studies that exist already."),
    ] = False,
    dashboard: BesideDashboard = False,
    server: Annotated[
        str | None,
        typer.Option(
            help="Hand the studies to this server, as `tune submit` does, and follow them."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study file until its budget is spent, or several side by side.

    Several studies share the machine or the cluster equally, as long as each has something to run.
    If one fails, the others continue. Ctrl-C stops them cleanly: everything recorded is kept, and
    `tune resume` continues. With `--server` they continue there after Ctrl-C.
    """
    from tunesvc.cli.several_studies import Changes, check_options, read_all
    from tunesvc.execution.driver.ray_pool import RayPool

    if name is not None and len(files) > 1:
        raise typer.BadParameter("--name is for one file: with several, write `name` into each")
    _check_options(dashboard=dashboard, quiet=quiet)
    changes = Changes(trials, parallelism, name, seed, schedule)
    documents = read_all(files, changes)
    server = server or typed_server()
    if server is not None:
        if resume or dashboard:
            raise typer.BadParameter("--resume and --dashboard are for studies that run here")
        raise typer.Exit(_run_on_server(server, files, documents, as_json=as_json, quiet=quiet))
    with RayPool().prestart(
        [document.spec for document in documents],
        str(documents[0].folder),
    ) as ray_pool:

        def start_study(
            document: StudyDocument,
            observer: Observer,
            interrupt: threading.Event,
        ) -> Study:
            from tunesvc import api

            return api.run(
                document,
                database_url=database_url,
                resume=resume,
                observer=observer,
                interrupt=interrupt,
                make_executor=ray_pool.executor,
                check=False,
            )

        runs = {document.spec.name: partial(start_study, document) for document in documents}
        titles = {document.spec.name: title_of(document.spec) for document in documents}
        check = partial(check_options, files)
        _session(
            titles,
            runs,
            ray_pool,
            database_url,
            check,
            dashboard=dashboard,
            as_json=as_json,
            quiet=quiet,
        )


def resume(
    studies: StudyNames,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="Wait while another process runs the study; take over when it is gone.",
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder that the objective was moved to; for one study only."),
    ] = None,
    dashboard: BesideDashboard = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue studies that were interrupted, paused, stopped or extended, or stand by for running
    ones. A server continues those that were submitted."""
    from tunesvc import api
    from tunesvc.cli.several_studies import check_together, locations
    from tunesvc.execution.driver.ray_pool import RayPool

    if folder is not None and len(studies) > 1:
        raise typer.BadParameter("--folder is for one study: resume the others with a command each")
    _check_options(dashboard=dashboard, quiet=quiet)
    if chosen_server(server) is not None and (standby or folder is not None or dashboard):
        raise typer.BadParameter("--standby, --folder and --dashboard are not for a server")
    studies = _queue_submitted(studies, server, database_url, as_json=as_json)
    if not studies:
        return
    if len(studies) > 1:
        check_together(locations(studies, database_url))

    with RayPool(of_several=len(studies) > 1) as ray_pool:

        def start_study(
            study: str,
            observer: Observer,
            interrupt: threading.Event,
        ) -> Study:
            return api.load_study(study, database_url=database_url).resume(
                folder=folder,
                standby=standby,
                observer=observer,
                interrupt=interrupt,
                make_executor=ray_pool.executor,
                check=False,
            )

        runs = {study: partial(start_study, study) for study in studies}
        titles = {study: study for study in studies}
        _session(
            titles,
            runs,
            ray_pool,
            database_url,
            dashboard=dashboard,
            as_json=as_json,
            quiet=quiet,
        )


def _queue_submitted(
    studies: list[str],
    server: str | None,
    database_url: str | None,
    *,
    as_json: bool,
) -> list[str]:
    """Let servers run the submitted studies; return the others, which this process runs."""
    others = []
    with opened_client(database_url, server) as client:
        is_remote = chosen_server(server) is not None
        for name in studies:
            if not is_remote and client.studies.get(name).submission is None:
                others.append(name)
            else:
                _print_answer(name, client.commands.send(name, "resume"), as_json=as_json)
    return others


def _print_answer(name: str, answer: str, *, as_json: bool) -> None:
    from tunesvc.views.terminal import out, print_json

    if as_json:
        print_json({"study": name, "request": "resume", "answer": answer})
    else:
        out().print(visible(answer), markup=False)


def _run_on_server(
    server: str,
    files: Sequence[Path],
    documents: Sequence[StudyDocument],
    *,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Submit the studies and follow those that the server takes."""
    from tunesvc.cli.following import follow
    from tunesvc.errors import Forbidden, ServerError, TuneError, Unauthenticated

    queued, refused = [], dict[str, Exception]()
    with opened_client(None, server) as client:
        for file, document in zip(files, documents, strict=True):
            try:
                queued.append(submit_document(client, file, document))
            except (ServerError, Unauthenticated, Forbidden):
                raise  # the next one would end like this, too
            except TuneError as error:
                refused[document.spec.name] = error
        if not queued and len(refused) == 1:
            raise next(iter(refused.values()))
        return follow(client, queued, refused, as_json=as_json, quiet=quiet)


def _check_options(*, dashboard: bool, quiet: bool) -> None:
    if dashboard and quiet:
        raise typer.BadParameter("--dashboard tells its address: leave --quiet out")


def _session(
    titles: Mapping[str, str],
    runs: Mapping[str, Run],
    ray_pool: RayPool,
    database_url: str | None,
    check: Callable[[], None] = lambda: None,
    *,
    dashboard: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run studies with a suitable view, print the results, and exit with their code.

    `check` runs while Ray starts, and raises an error that prevents all of them.
    """

    def start(observers: Observers, interrupt: threading.Event) -> Mapping[str, Study | Exception]:
        from tunesvc.coordinator.progress_events import ProgressEvent

        observers.whole.on_event(ProgressEvent("phase", "starting Ray"))
        check()
        from tunesvc import api  # takes a second, in which Ray starts
        from tunesvc.util.threads import together

        api.shared_database(database_url)  # once for all, and one error if it cannot be opened
        with _dashboard(observers.whole, database_url) if dashboard else nullcontext():
            tasks = {
                name: partial(
                    run if len(runs) == 1 else partial(_run_and_show_end, run),
                    observers.each[name],
                    interrupt,
                )
                for name, run in runs.items()
            }
            ended = together(tasks)
            observers.whole.on_event(ProgressEvent("phase", "ending Ray"))
            ray_pool.end()
        return ended

    from tunesvc.cli.views import summary

    ended, _ = run_session(titles, start, as_json=as_json, quiet=quiet)
    raise typer.Exit(summary.print_results(ended, as_json=as_json, quiet=quiet))


def _run_and_show_end(
    run: Run,
    observer: Observer,
    interrupt: threading.Event,
) -> Study:
    """Run one of several studies and show at once how it ended, since the others continue."""
    from tunesvc.cli.views.summary import describe_error
    from tunesvc.coordinator.progress_events import ProgressEvent

    try:
        study = run(observer, interrupt)
        view = study.view
    except Exception as error:
        observer.on_event(ProgressEvent("error", describe_error(error)))
        raise
    ended = "interrupted" if study.interrupted else view.state_and_reason
    observer.on_event(ProgressEvent("over", ended))
    return study


@contextmanager
def _dashboard(observer: Observer, database_url: str | None) -> Iterator[None]:
    """Serve a dashboard for the duration of the run."""
    from tunesvc import api
    from tunesvc.cli.commands.dashboard import served
    from tunesvc.coordinator.progress_events import ProgressEvent

    with served(api.shared_database(database_url)) as server:
        observer.on_event(ProgressEvent("dashboard", server.new_address()))
        yield
