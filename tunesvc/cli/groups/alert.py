"""The commands of alerts: alert add, list, test, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesvc.cli.chosen_client import ClientCommand, opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, ServerUrl
from tunesvc.util import formatting

app = typer.Typer(help="News about your studies, by mail, chat or web hook.", no_args_is_help=True)

TargetId = Annotated[
    int, typer.Argument(help="Its number in `tune alert list`.", metavar="NUMBER", min=0)
]


@app.command("add", cls=ClientCommand)
def add_target(
    url: Annotated[
        str,
        typer.Argument(
            help="Address as Apprise reads it, such as slack://TOKEN/CHANNEL.", metavar="URL"
        ),
    ],
    study: Annotated[
        str | None,
        typer.Option(help="This study only; by default all that you submit."),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            metavar="KIND",
            help="finished, failed, stalled, target, budget (nearly spent) or promoted (a new "
            "champion); may be repeated. All by default.",
        ),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Deliver alerts to an address. Servers (`tune serve`) send them."""
    with opened_client(database_url, server) as client:
        target_id = client.alerts.add(url, study=study, kinds=kinds or ())
    typer.echo(f"added alert {target_id}: `tune alert test {target_id}` sends a test message")


@app.command("list", cls=ClientCommand)
def list_targets(
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List your alert addresses, without the secrets in them, and their last errors."""
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        targets = client.alerts.targets()
    if as_json:
        terminal.print_json(targets)
        return
    lines = [
        (
            target.target_id,
            target.place,
            target.study or "all you submit",
            ", ".join(target.kinds),
            formatting.ago(target.created_at),
            target.error,
        )
        for target in targets
    ]
    console = terminal.out()
    heads = (">number", "address", "studies", "on", "added", "last error")
    console.print(terminal.fitted(heads, lines, console.width) if lines else "No alerts yet.")


@app.command("test", cls=ClientCommand)
def send_test(
    number: TargetId,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Send a test message."""
    from tunesvc.errors import TuneError

    with opened_client(database_url, server) as client:
        error = client.alerts.test(number)
    if error:
        raise TuneError(error)
    typer.echo("sent")


@app.command("remove", cls=ClientCommand)
def remove_target(
    number: TargetId,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Deliver no more alerts to an address."""
    with opened_client(database_url, server) as client:
        client.alerts.remove(number)
    typer.echo(f"removed alert {number}")
