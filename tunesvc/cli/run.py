"""Commands that run a study: run and resume. Owns Ctrl-C, the choice of the view, and the closing words."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tunesvc import words
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.options import DatabaseUrl, Json, Quiet, StudyName

if TYPE_CHECKING:
    from tunesvc.api import Study
    from tunesvc.coordinator.progress import Observer
    from tunesvc.insights import StudyView
    from tunesvc.spec import StudySpec
    from tunesvc.spec.document import StudyDocument
    from tunesvc.store.database import Database

T = TypeVar("T")

BesideDashboard = Annotated[
    bool, typer.Option("--dashboard", help="Show the run in the browser too, for as long as it goes on.")
]
StudyFile = Annotated[Path, typer.Argument(help="A study file, see `tune init`.", metavar="FILE")]


def run(
    file: StudyFile,
    trials: Annotated[int | None, typer.Option(min=1, help="Instead of `budget.trials`.")] = None,
    parallelism: Annotated[int | None, typer.Option("--parallelism", "-p", min=1, help="Trials at a time.")] = None,
    name: Annotated[str | None, typer.Option(help="Instead of the study's name.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the study's seed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study if it is there already.")] = False,
    dashboard: BesideDashboard = False,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a study file until its budget is spent.

    Ctrl-C stops it cleanly: everything recorded is kept, and `tune resume` goes on.
    """
    from tunesvc.coordinator.progress import Note
    from tunesvc.execute.ray_start import Rays
    from tunesvc.spec.document import load

    document = _changed(load(file), trials=trials, parallelism=parallelism, name=name, seed=seed)
    dashboard_of = _dashboard_of(dashboard, database_url, quiet)
    with Rays().ahead(document.spec.cluster, str(document.folder)) as rays:

        def start(observer: Observer, interrupt: threading.Event) -> Study:
            observer.note(Note("phase", "starting Ray"))
            from tunesvc import api  # takes a second, in which Ray starts

            return api.run(
                document,
                database_url=database_url,
                resume=resume,
                observer=observer,
                interrupt=interrupt,
                make_executor=rays.executor,
            )

        _session(
            document.spec.name,
            _title(document.spec),
            start,
            dashboard_of=dashboard_of,
            as_json=as_json,
            quiet=quiet,
        )


def resume(
    study: StudyName,
    standby: Annotated[
        bool, typer.Option("--standby", help="While another process runs it: wait, and take over when that is gone.")
    ] = False,
    dashboard: BesideDashboard = False,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a study that was interrupted, paused, stopped or extended, or stand by for the one that runs it."""
    from tunesvc import api

    _session(
        study,
        study,
        lambda observer, interrupt: api.resume(
            study, standby=standby, database_url=database_url, observer=observer, interrupt=interrupt
        ),
        dashboard_of=_dashboard_of(dashboard, database_url, quiet),
        as_json=as_json,
        quiet=quiet,
    )


def _dashboard_of(wanted: bool, database_url: str | None, quiet: bool) -> Callable[[], Database] | None:
    """Opens what the dashboard beside a run shows; None when there is to be none."""
    if wanted and quiet:
        raise typer.BadParameter("--dashboard tells its address: leave --quiet out")
    if not wanted:
        return None

    def opened() -> Database:
        from tunesvc import api

        return api.shared_database(database_url)

    return opened


def _changed(
    document: StudyDocument, *, trials: int | None, parallelism: int | None, name: str | None, seed: int | None
) -> StudyDocument:
    """The document under what the command line says instead."""
    spec = document.spec
    changes: dict[str, Any] = {"parallelism": parallelism, "name": name, "seed": seed}
    if trials is not None:
        changes["budget"] = spec.budget.model_copy(update={"trials": trials})
    if seed is not None:
        changes["sampler"] = spec.sampler.model_copy(update={"seed": None})  # it would win over the study's
    kept = {key: value for key, value in changes.items() if value is not None}
    return dataclasses.replace(document, spec=spec.model_copy(update=kept)) if kept else document


def _title(spec: StudySpec) -> str:
    pruner = f" · {spec.pruner.name}" if spec.pruner.name != "none" else ""
    return f"{spec.name} · {spec.sampler.name}{pruner}"


def _session(
    name: str,
    title: str,
    start: Callable[[Observer, threading.Event], Study],
    *,
    dashboard_of: Callable[[], Database] | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run under the right view, say how it ended, and exit with its code."""
    begin = start if dashboard_of is None else partial(_beside_dashboard, dashboard_of, start)
    study, interrupt = attended(title, begin, as_json=as_json, quiet=quiet)
    code = _exit_code(study.view, interrupted=interrupt.is_set())
    if as_json:
        _print_end(study, code)
    elif not quiet:
        _print_summary(study, code)
    raise typer.Exit(code)


def _beside_dashboard(
    open_database: Callable[[], Database],
    start: Callable[[Observer, threading.Event], Study],
    observer: Observer,
    interrupt: threading.Event,
) -> Study:
    """Run with a dashboard that begins and ends with the run."""
    from tunesvc.cli.dashboard import served
    from tunesvc.coordinator.progress import Note

    observer.note(Note("phase", "opening the database"))
    with served(open_database()) as server:
        observer.note(Note("dashboard", server.new_address()))
        return start(observer, interrupt)


def attended(
    title: str, start: Callable[[Observer, threading.Event], T], *, as_json: bool, quiet: bool
) -> tuple[T, threading.Event]:
    """Run something under the right view and with an orderly Ctrl-C; returns what it did, and whether it was."""
    interrupt = threading.Event()
    with ExitStack() as stack:
        observer = stack.enter_context(_view(title, interrupt, as_json=as_json, quiet=quiet))
        stack.enter_context(_ctrl_c(interrupt))
        _hush()
        return start(observer, interrupt), interrupt


def _hush() -> None:
    """Optuna's own messages would run through the view; what matters of them is told by notes."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def _view(title: str, interrupt: threading.Event, *, as_json: bool, quiet: bool) -> Iterator[Observer]:
    from tunesvc.cli.live import LiveView
    from tunesvc.cli.output import out
    from tunesvc.cli.plain import JsonLines, PlainLines
    from tunesvc.coordinator.progress import SilentObserver

    if as_json:
        yield JsonLines()
    elif quiet:
        yield SilentObserver()
    elif out().is_terminal and not out().is_dumb_terminal:
        with LiveView(title, out(), interrupt) as view:
            yield view
    else:
        yield PlainLines()


@contextmanager
def _ctrl_c(interrupt: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a clean end, the second one ends the process."""
    from tunesvc.cli.live import STOPPING

    def stop(_number: int, _frame: FrameType | None) -> None:
        if interrupt.is_set():
            # the terminal's cursor is hidden by the live view
            os.write(2, b"\x1b[?25h\n" if sys.stderr.isatty() else b"")
            os.write(2, b"forced to end; what was recorded is kept, and `tune resume` goes on in a few seconds\n")
            os._exit(ExitCode.INTERRUPTED)
        interrupt.set()
        if not sys.stdout.isatty():  # the live view shows it by itself, and would draw over it
            os.write(2, f"{STOPPING}\n".encode())

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(view: StudyView, *, interrupted: bool) -> ExitCode:
    nothing_worked = view.counts.failed > 0 and view.counts.complete + view.counts.pruned == 0
    if view.state == "failed" or (view.state == "finished" and nothing_worked):
        return ExitCode.FAILED
    return ExitCode.INTERRUPTED if interrupted and view.state == "running" else ExitCode.DONE


def _print_end(study: Study, code: ExitCode) -> None:
    from tunesvc.cli.output import plain
    from tunesvc.cli.plain import JsonLines

    view = study.view
    JsonLines().write(
        "end",
        {
            "study": view.name,
            "state": view.state,
            "reason": view.reason,
            "counts": plain(view.counts),
            "best": plain(study.front if len(view.objectives) > 1 else study.best),
            "elapsed_s": view.active_s,
            "gpu_hours": view.gpu_hours,
            "exit_code": int(code),
        },
    )


def _print_summary(study: Study, code: ExitCode) -> None:
    from rich.text import Text

    from tunesvc.cli import output, study_text

    console, view, front = output.out(), study.view, study.front
    answer, best = study.recommendation, study.best
    if answer is not None and best is not None and best.number != answer.luckiest:
        front = [best, *front]
    state = "interrupted" if code is ExitCode.INTERRUPTED else str(view.state)
    reason = f": {output.clean(view.reason)}" if view.reason else ""
    after = f" after {words.duration(view.active_s)}{reason}"
    console.print(Text.assemble("\n", (output.clean(view.name), "bold"), " ", output.state_text(state), after))
    console.print(Text.assemble(("trials  ", "dim"), study_text.counts(view)))
    if front:
        console.print(Text(), study_text.best(view, front, console.width, answer), sep="\n")
    console.print(_next_commands(view.name, view.state, code, found=bool(front)))


def _next_commands(name: str, state: str, code: ExitCode, *, found: bool) -> Any:
    import shlex

    from rich.table import Table

    from tunesvc.cli import output

    quoted = shlex.quote(output.clean(name))
    grid = Table.grid(padding=(0, 3))
    rows = [("", "")]
    if code is ExitCode.FAILED:
        rows.append((f"tune show {quoted} 0", "what went wrong, with the traceback"))
        rows.append((f"tune rm {quoted}", "delete it, to start afresh"))
    elif code is ExitCode.INTERRUPTED or state in ("paused", "stopped", "failed"):
        rows.append((f"tune resume {quoted}", "go on where it stopped"))
    elif state == "finished":
        rows.append((f"tune extend {quoted} --trials 20", "give it more budget, then `tune resume`"))
    if found:
        rows += [
            (f"tune best {quoted} --yaml", "the best parameters"),
            (f"tune report {quoted}", "all of it as one page"),
        ]
    rows.append((f"tune show {quoted}", "how it stands, and the newest trials"))
    for command, meaning in rows:
        grid.add_row(*output.cells(command, meaning))
    grid.columns[0].style, grid.columns[1].style = "cyan", "dim"
    return grid
