"""Commands that manage the database: db status, upgrade, backup, restore, grant, path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesvc.cli.chosen_client import MachineCommand
from tunesvc.cli.cli_options import DatabaseUrl, Json

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command(cls=MachineCommand)
def status(database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Show which database is used, its schema's version and what it holds."""
    from tunesvc.db import backup
    from tunesvc.db.engine.database import connect
    from tunesvc.views import terminal

    with connect(database_url) as database:
        current = backup.status(database)
    if as_json:
        terminal.print_json(current)
        return
    version = current.revision or "none"
    if current.revision != current.program_revision:
        version += f": `tune db upgrade` makes it {current.program_revision}"
    rows = {
        "database": current.name,
        "server": f"Postgres {current.server_version}",
        "schema": version,
    }
    rows["size"] = f"{current.size_bytes / 1e6:.1f} MB"
    studies = f"{current.studies} studies ({current.running} running)"
    rows["holds"] = f"{studies}, {current.trials} trials"
    grid = terminal.table("", "")
    grid.show_header = False
    for name, text in rows.items():
        grid.add_row(*terminal.cells(name, text))
    terminal.out().print(grid)


@app.command(cls=MachineCommand)
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the schema up to this program's version. Every other command does so by itself."""
    from tunesvc.db.engine.database import open_database

    with open_database(database_url) as database:
        typer.echo(f"{database.name} is up to date")


@app.command(cls=MachineCommand)
def backup(
    file: Annotated[Path, typer.Argument(help="The backup to write.", metavar="FILE")],
    database_url: DatabaseUrl = None,
) -> None:
    """Write a consistent snapshot of the whole database to a file. Studies may run meanwhile."""
    from tunesvc.db import backup as backups
    from tunesvc.db.engine.database import connect

    with connect(database_url) as database:
        backups.backup(database, file)
    typer.echo(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


@app.command(cls=MachineCommand)
def restore(
    file: Annotated[
        Path,
        typer.Argument(help="A backup that `tune db backup` wrote.", metavar="FILE"),
    ],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Delete the studies that are there."),
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Read a backup into an empty database, or with `--replace` in place of the current
    contents."""
    from tunesvc.db import backup as backups
    from tunesvc.db.engine.database import connect

    with connect(database_url) as database:
        backups.restore(database, file, replace=replace)
    typer.echo(f"restored {file}")


@app.command(cls=MachineCommand)
def grant(
    role: Annotated[str, typer.Argument(help="A Postgres role that exists.", metavar="ROLE")],
    kind: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="KIND",
            help="service: run studies, change no schema. reader: read all but secrets.",
        ),
    ],
    database_url: DatabaseUrl = None,
) -> None:
    """Give a Postgres role what a service or a reader needs, and nothing else. Run it again after
    an upgrade."""
    from tunesvc.db.engine.database import open_database
    from tunesvc.db.privileges import RoleKind, grant_privileges

    if kind not in list(RoleKind):
        raise typer.BadParameter(f"--as {kind}: choose from {', '.join(RoleKind)}")
    with open_database(database_url) as database:
        grant_privileges(database, role, RoleKind(kind))
        typer.echo(f"{role} is a {kind} of {database.name}")


@app.command(cls=MachineCommand)
def path() -> None:
    """Print the folder that holds the embedded database, checkpoints and everything else on this
    machine."""
    from tunesvc.util.paths import home_directory

    typer.echo(str(home_directory()))
