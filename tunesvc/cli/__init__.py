"""The command line: `tune`. Reads through `queries`, acts through `api`; contains no logic and no
SQL.

Modules with slow imports (Optuna, Ray, Postgres, pandas, Plotly) are imported inside commands, so
that `tune --help` answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tunesvc import __version__
from tunesvc.cli import final_commands
from tunesvc.cli.chosen_client import ClientCommand, MachineCommand
from tunesvc.cli.commands import (
    agents,
    control,
    dashboard,
    doctor,
    explain,
    export,
    files,
    login,
    notes,
    run,
    send,
    serve,
    show,
    submit,
    watch,
)
from tunesvc.cli.exits import ExitCode, code_of, explained
from tunesvc.cli.groups import alert, champion, data_versions, database, people
from tunesvc.cli.help import tidy_help, without_type
from tunesvc.errors import TuneError
from tunesvc.util import logs


class Commands(TyperGroup):
    """Turn errors into one line and an exit code; `TUNE_DEBUG=1` shows the traceback."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        tidy_help(self)

    def get_help_option(self, ctx: Any) -> Any:
        """Return `--help` as a switch, without a type."""
        return without_type(super().get_help_option(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("TUNE_DEBUG") == "1":
                raise
            raise typer.Exit(_report(error)) from error


_REPORT_IT = "This should not happen. TUNE_DEBUG=1 shows where it does; please report it."


def _report(error: Exception) -> ExitCode:
    from tunesvc.views.terminal import print_error

    if isinstance(error, TuneError):
        print_error(str(error))
        return code_of(error)
    if isinstance(error, OSError) and error.filename is not None:
        print_error(f"{error.filename}: {error.strerror}")
        return ExitCode.FAILED
    print_error(
        f"{type(error).__name__}: {error}\n{_REPORT_IT}",
    )
    return ExitCode.FAILED


_HELP = "Tune hyperparameters: Optuna's samplers, Ray's workers, and a Postgres that loses nothing."

app = typer.Typer(
    name="tune",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=_HELP,
    epilog=explained(),
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"tunesvc {__version__}")
        raise typer.Exit


@app.callback()
def main(
    server: Annotated[
        str | None,
        typer.Option(
            help="Work with the studies of this server instead of a database. Its token is in "
            "TUNE_TOKEN, or stored by `tune login`.",
            envvar="TUNE_SERVER",
            metavar="URL",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
    log_level: Annotated[
        str | None,
        typer.Option(
            help=f"Log to standard error: {', '.join(logs.LEVELS)}. Nothing by default.",
            envvar=logs.LEVEL,
        ),
    ] = None,
    log_format: Annotated[
        str,
        typer.Option(help="Log as text or json (needs `tunesvc[json-logs]`).", envvar=logs.FORMAT),
    ] = "text",
) -> None:
    """Tune hyperparameters: Optuna's samplers, Ray's workers, and a Postgres that loses nothing."""
    # Processes that a command starts inherit them. `tune serve` has a level of its own.
    os.environ[logs.FORMAT] = log_format
    if log_level is not None:
        os.environ[logs.LEVEL] = log_level
    try:
        logs.configure()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


_RUN = "Run"
_LOOK = "Look"
_STEER = "Steer"
_SETUP = "Set up"

_HERE = (
    *(dashboard.dashboard, serve.serve, send.send),
    *(files.init, files.import_, files.validate, files.preview, files.schema),
)
"""Commands that only work on this machine, beside those of `db`."""

for panel, commands in (
    (
        _RUN,
        (
            run.run,
            run.resume,
            watch.watch,
            submit.submit,
            agents.agent,
            explain.confirm,
            final_commands.apply,
            files.init,
            files.import_,
            files.validate,
            files.preview,
        ),
    ),
    (
        _LOOK,
        (
            dashboard.dashboard,
            *(show.ls, show.show, show.best, show.trials, show.logs, submit.queue),
            *(
                explain.explain,
                explain.replay,
                export.report,
                export.export,
                send.send,
                export.checkpoint,
                export.artifacts,
            ),
        ),
    ),
    (
        _STEER,
        (
            *(
                control.pause,
                control.stop,
                control.extend,
                control.parallelism,
                control.widen,
            ),
            *(
                control.enqueue,
                control.retry,
                notes.tag,
                notes.note,
                notes.requests,
                control.rm,
            ),
        ),
    ),
    (
        _SETUP,
        (serve.serve, login.login, login.logout, people.audit, doctor.doctor, files.schema),
    ),
):
    for command in commands:
        kind = MachineCommand if command in _HERE else ClientCommand
        app.command(command.__name__.rstrip("_"), cls=kind, rich_help_panel=panel)(command)
for name, group in (
    ("token", people.token_app),
    ("user", people.user_app),
    ("project", people.project_app),
    ("alert", alert.app),
    ("champion", champion.app),
    ("data", data_versions.app),
    ("db", database.app),
):
    app.add_typer(group, name=name, rich_help_panel=_SETUP)
