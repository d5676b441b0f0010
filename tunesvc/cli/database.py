"""Commands that look after the database: db status, upgrade, backup, restore, path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesvc.cli.options import DatabaseUrl, Json

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def status(database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Show which database is used, its schema's version and what it holds."""
    from tunesvc.cli import output
    from tunesvc.store import backup

    found = backup.status(database_url)
    if as_json:
        output.print_json(found)
        return
    grid = output.table("", "")
    grid.show_header = False
    for name, value in output.plain(found).items():
        grid.add_row(*output.cells(name.replace("_", " "), value))
    output.out().print(grid)


@app.command()
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the schema up to this program's version. Every other command does so by itself."""
    from tunesvc.store.database import open_database

    with open_database(database_url) as database:
        typer.echo(f"{database.name} is up to date")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The backup to write.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Write a backup of everything that is stored."""
    from tunesvc.store import backup as backups

    backups.backup(file, database_url)
    typer.echo(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup that `tune db backup` wrote.", exists=True, dir_okay=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Read a backup into the database, in place of what is there."""
    from tunesvc.store import backup as backups

    if not yes:
        typer.confirm(f"Replace what is stored by {file}?", abort=True)
    backups.restore(file, database_url)
    typer.echo(f"restored {file}")


@app.command()
def path() -> None:
    """Print the folder that holds the embedded database, checkpoints and everything else on this machine."""
    from tunesvc.store.home import home_directory

    typer.echo(str(home_directory()))
