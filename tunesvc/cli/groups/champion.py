"""The commands of champions: champion ls, show, promote, rollback, export, unwatch, deliver."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import ClientCommand, MachineCommand, chosen_server, opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, ServerUrl, StudyName
from tunesvc.util.characters import visible

if TYPE_CHECKING:
    from tunesvc.client.interface import TuneClient
    from tunesvc.db.champions.served_watches import ServedWatch

app = typer.Typer(help="The configurations that production uses.", no_args_is_help=True)

Family = Annotated[
    str, typer.Argument(help="Name of the study that is tuned again.", metavar="FAMILY")
]
ChampionNumber = Annotated[
    int | None,
    typer.Option("--to", help="Number of the champion to restore.", metavar="NUMBER", min=1),
]
Reason = Annotated[str, typer.Option(help="For the history.", metavar="TEXT")]


@app.command(cls=ClientCommand)
def ls(server: ServerUrl = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """List the champion of each family, and the families that servers watch."""
    from tunesvc.cli.views import champion_text, watch_text
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        found = client.service.champions()
        watches = client.submissions.watches()
    if as_json:
        terminal.print_json({"champions": found, "watches": watches})
        return
    if found:
        champion_text.print_champions(found)
    else:
        typer.echo("no champions yet: `tune watch FILE`, or `tune champion promote STUDY`")
    if watches:
        typer.echo("\nwatched by servers:")
        watch_text.print_watches(watches)


@app.command(cls=ClientCommand)
def show(
    family: Family,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show a family's champion with the evidence for it, how servers watch it, and its history."""
    from tunesvc.cli.views import champion_text, watch_text
    from tunesvc.errors import ChampionNotFound
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        watches = client.submissions.watches()
        watch = next((one for one in watches if one.family == family), None)
        try:
            history = client.service.champion_history(family)
        except ChampionNotFound:
            if watch is None:
                raise
            history = None
    if as_json:
        plain = {} if history is None else terminal.plain(history)
        terminal.print_json({**plain, "watch": watch})
        return
    if watch is not None:
        watch_text.print_watch(watch)
    if history is None:
        typer.echo("no champion yet")
    else:
        champion_text.print_champion(history)
        if watch is not None and watch.is_stopped and any(a.is_due for a in history.announcements):
            typer.echo(f"\n! {watch_text.describe_waiting(watch)}")


@app.command(cls=ClientCommand)
def unwatch(
    family: Family,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Stop servers from watching a family; a study of it that runs continues."""
    from tunesvc.cli.views import watch_text
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        removed = client.submissions.unwatch(family)
    if as_json:
        terminal.print_json(removed)
    else:
        watch_text.print_removed(removed)


@app.command(cls=ClientCommand)
def promote(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(help="Number of the trial; the recommended one by default.", min=0),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Family of the champion; by default the one of the study's name."),
    ] = None,
    reason: Reason = "",
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a trial the champion of its family, without a test."""
    from tunesvc.champions.watch_specs import family_of

    payload = {"number": trial, "family": family, "reason": reason}
    with opened_client(database_url, server) as client:
        typer.echo(visible(client.commands.send(study, "promote", payload)))
    _announce(family or family_of(study), server, database_url)


@app.command(cls=ClientCommand)
def rollback(
    family: Family,
    to: ChampionNumber = None,
    reason: Reason = "",
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Restore an earlier champion: by default the last one with another configuration.

    `tune watch` does not replace it again for the same data.
    """
    payload = {"champion": to, "family": family, "reason": reason}
    with opened_client(database_url, server) as client:
        study = _study_of(client, family)
        typer.echo(visible(client.commands.send(study, "rollback", payload)))
    _announce(family, server, database_url)


@app.command(cls=ClientCommand)
def export(
    family: Family,
    number: Annotated[
        int | None,
        typer.Option(help="An earlier champion; today's by default.", metavar="NUMBER", min=1),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print a champion's parameters and evidence as YAML, or JSON."""
    import json

    from tunesvc.champions.promotion import export_champion
    from tunesvc.errors import ChampionNotFound
    from tunesvc.spec.yaml.document import to_yaml
    from tunesvc.util.json_values import plain

    with opened_client(database_url, server) as client:
        history = client.service.champion_history(family)
    of_number = {one.champion_id: one for one in history.champions}
    if number is not None and number not in of_number:
        raise ChampionNotFound(
            f"{family!r} has no champion {number}: `tune champion show {family}` lists them"
        )
    champion = history.current if number is None else of_number[number]
    exported = plain(export_champion(champion))
    typer.echo(json.dumps(exported, indent=2) if as_json else to_yaml(exported).rstrip())


@app.command(cls=MachineCommand)
def deliver(family: Family, database_url: DatabaseUrl = None) -> None:
    """Announce promotions to hooks that have failed or were not reached, as `tune watch` does."""
    from tunesvc.champions.champion_functions import deliver_promotions, load_champion
    from tunesvc.errors import TuneError

    load_champion(family, database_url=database_url)
    if not _count_due(family, None, database_url):
        typer.echo("nothing is due")
    elif deliver_promotions(family, typer.echo, database_url=database_url):
        raise TuneError(f"not all promotions of {family!r} could be announced")


def _study_of(client: TuneClient, family: str) -> str:
    """Return a study of a family that is there: the one it is named for, or one of a champion.

    Raises:
        StudyNotFound: all were deleted.
    """
    from tunesvc.errors import StudyNotFound

    history = client.service.champion_history(family)
    for study in (family, *(one.configuration.study for one in history.champions)):
        with suppress(StudyNotFound):
            return client.studies.get(study).name
    raise StudyNotFound(
        f"all studies of {family!r} were deleted: `tune champion promote STUDY TRIAL --family "
        f"{family}` chooses a trial of another one"
    )


def _announce(family: str, server: str | None, database_url: str | None) -> None:
    """Announce what is due, or say which command does: hooks are run beside a database only."""
    from tunesvc.champions.champion_functions import deliver_promotions
    from tunesvc.cli.views import watch_text
    from tunesvc.errors import StudyBusy

    if not _count_due(family, server, database_url):
        return
    watch = _find_watch(family, server, database_url)
    if watch is not None and not watch.is_stopped:
        typer.echo("its hooks are called by the servers that watch it")
        return
    if chosen_server(server) is not None:
        if watch is not None:
            typer.echo(watch_text.describe_waiting(watch))
            return
        typer.echo("its hooks are called by the next `tune watch`, where that runs")
        return
    try:
        deliver_promotions(family, typer.echo, database_url=database_url)
    except StudyBusy as error:
        typer.echo(f"its hooks are called later: {error}")


def _count_due(family: str, server: str | None, database_url: str | None) -> int:
    with opened_client(database_url, server) as client:
        announcements = client.service.champion_history(family).announcements
    return sum(one.is_due for one in announcements)


def _find_watch(family: str, server: str | None, database_url: str | None) -> ServedWatch | None:
    """Return how servers watch a family; None if they do not."""
    with opened_client(database_url, server) as client:
        return next((one for one in client.submissions.watches() if one.family == family), None)
