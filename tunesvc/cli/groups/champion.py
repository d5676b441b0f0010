"""The commands of champions: champion ls, show, promote, rollback, export, deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import MachineCommand
from tunesvc.cli.cli_options import DatabaseUrl, Json, StudyName

if TYPE_CHECKING:
    from tunesvc.db.champions.champion_records import Champion
    from tunesvc.db.champions.promotion_deliveries import PromotionDelivery

app = typer.Typer(help="The configurations that production uses.", no_args_is_help=True)

Family = Annotated[
    str, typer.Argument(help="Name of the study that is tuned again.", metavar="FAMILY")
]
ChampionNumber = Annotated[
    int | None,
    typer.Option("--to", help="Number of the champion to restore.", metavar="NUMBER", min=1),
]
Reason = Annotated[str, typer.Option(help="For the history.", metavar="TEXT")]


@app.command(cls=MachineCommand)
def ls(database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """List the champion of each family."""
    from tunesvc.champions.champion_functions import list_champions
    from tunesvc.cli.views import champion_text
    from tunesvc.views import terminal

    found = list_champions(database_url=database_url)
    if as_json:
        terminal.print_json(found)
    elif found:
        champion_text.print_champions(found)
    else:
        typer.echo("no champions yet: `tune watch FILE`, or `tune champion promote STUDY`")


@app.command(cls=MachineCommand)
def show(family: Family, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Show a family's champion, the evidence for it, and the champions before it."""
    from tunesvc.champions.champion_functions import champion_history, load_champion
    from tunesvc.cli.views import champion_text
    from tunesvc.views import terminal

    champion = load_champion(family, database_url=database_url)
    history = champion_history(family, database_url=database_url)
    deliveries = _deliveries(family, database_url)
    if as_json:
        terminal.print_json({"champion": champion, "history": history, "deliveries": deliveries})
        return
    champion_text.print_champion(champion, history, deliveries)


@app.command(cls=MachineCommand)
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
    database_url: DatabaseUrl = None,
) -> None:
    """Make a trial the champion of its family, without a test."""
    from tunesvc.champions import champion_functions

    champion = champion_functions.promote(
        study, trial, family=family, reason=reason, database_url=database_url
    )
    _finish(champion, database_url)


@app.command(cls=MachineCommand)
def rollback(
    family: Family,
    to: ChampionNumber = None,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
) -> None:
    """Restore an earlier champion: by default the last one with another configuration.

    `tune watch` does not replace it again for the same data.
    """
    from tunesvc.champions import champion_functions

    champion = champion_functions.rollback(family, to, reason=reason, database_url=database_url)
    _finish(champion, database_url)


@app.command(cls=MachineCommand)
def export(
    family: Family,
    number: Annotated[
        int | None,
        typer.Option(help="An earlier champion; today's by default.", metavar="NUMBER", min=1),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print a champion's parameters and evidence as YAML, or JSON."""
    import json

    from tunesvc.champions.champion_functions import champion_history, load_champion
    from tunesvc.champions.promotion import export_champion
    from tunesvc.errors import ChampionNotFound
    from tunesvc.spec.yaml.document import to_yaml
    from tunesvc.util.json_values import plain

    champion = load_champion(family, database_url=database_url)
    if number is not None:
        history = champion_history(family, database_url=database_url)
        chosen = next((one for one in history if one.champion_id == number), None)
        if chosen is None:
            raise ChampionNotFound(
                f"{family!r} has no champion {number}: `tune champion show {family}` lists them"
            )
        champion = chosen
    exported = plain(export_champion(champion))
    typer.echo(json.dumps(exported, indent=2) if as_json else to_yaml(exported).rstrip())


@app.command(cls=MachineCommand)
def deliver(family: Family, database_url: DatabaseUrl = None) -> None:
    """Announce promotions to hooks that have failed or were not reached, as `tune watch` does."""
    from tunesvc.champions.champion_functions import deliver_promotions, load_champion
    from tunesvc.errors import TuneError

    load_champion(family, database_url=database_url)
    if not _deliveries(family, database_url, due=True):
        typer.echo("nothing is due")
        return
    if deliver_promotions(family, typer.echo, database_url=database_url):
        raise TuneError(f"not all promotions of {family!r} could be announced")


def _finish(champion: Champion, database_url: str | None) -> None:
    """Say which champion it is now, and announce it."""
    from tunesvc.champions.champion_functions import deliver_promotions
    from tunesvc.errors import StudyBusy
    from tunesvc.util.characters import visible

    configuration = champion.configuration
    typer.echo(
        visible(
            f"champion {champion.champion_id} of {champion.family} is trial "
            f"{configuration.trial_number} of {configuration.study}"
        )
    )
    if _deliveries(champion.family, database_url, due=True):
        try:
            deliver_promotions(champion.family, typer.echo, database_url=database_url)
        except StudyBusy as error:
            typer.echo(f"it is announced later: {error}")


def _deliveries(
    family: str, database_url: str | None, *, due: bool = False
) -> tuple[PromotionDelivery, ...]:
    from tunesvc.api import shared_database
    from tunesvc.db.champions import promotion_deliveries

    with shared_database(database_url).engine.connect() as connection:
        return promotion_deliveries.list_deliveries(connection, family, due=due)
