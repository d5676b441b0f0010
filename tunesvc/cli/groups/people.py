"""The commands of accounts: token, user, project and audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunesvc.cli.chosen_client import ClientCommand, opened_client
from tunesvc.cli.cli_options import DatabaseUrl, Json, Limit, ServerUrl

if TYPE_CHECKING:
    from tunesvc.client.account_operations import AccountOperations, IssuedSecret

token_app = typer.Typer(help="Your own tokens.", no_args_is_help=True)
user_app = typer.Typer(help="Users of the service.", no_args_is_help=True)
project_app = typer.Typer(help="Projects and their members.", no_args_is_help=True)

UserName = Annotated[str, typer.Argument(help="Name of the user.", metavar="USER")]
ProjectName = Annotated[str, typer.Argument(help="Name of the project.", metavar="PROJECT")]
RoleName = Literal["viewer", "operator", "admin"]


@token_app.command("create", cls=ClientCommand)
def create_token(
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float, typer.Option(help="How long it is valid.")] = 90.0,
    forever: Annotated[bool, typer.Option("--forever", help="Let it never expire.")] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Create a token and print it. It is shown only now."""
    with _accounts(database_url, server) as accounts:
        issued = accounts.create_token(label, None if forever else days)
    _print_secret(issued, as_json)


@token_app.command("list", cls=ClientCommand)
def list_tokens(
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List your valid tokens and the browsers where you are signed in, without their secrets."""
    with _accounts(database_url, server) as accounts:
        rows = accounts.tokens()
    columns = ("token_id", "kind", "label", "created_at", "expires_at", "used_at")
    _print_rows(rows, columns, as_json)


@token_app.command("revoke", cls=ClientCommand)
def revoke_token(
    token: Annotated[int, typer.Argument(help="Its number in `tune token list`.", min=0)],
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a token invalid at once."""
    with _accounts(database_url, server) as accounts:
        accounts.revoke_token(token)
    typer.echo(f"revoked token {token}")


@user_app.command("add", cls=ClientCommand)
def add_user(
    name: UserName,
    admin: Annotated[
        bool,
        typer.Option("--admin", help="Let the user do everything, in every project."),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Add a user and print the secret of a link, which signs in once, within a day."""
    with _accounts(database_url, server) as accounts:
        issued = accounts.add_user(name, is_admin=admin)
    _print_secret(issued, as_json)


@user_app.command("link", cls=ClientCommand)
def link(
    name: UserName,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print the secret of another link, for a user who has lost all tokens."""
    with _accounts(database_url, server) as accounts:
        issued = accounts.make_link(name)
    _print_secret(issued, as_json)


@user_app.command("list", cls=ClientCommand)
def list_users(
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List users with their roles."""
    with _accounts(database_url, server) as accounts:
        rows = accounts.users()
    columns = ("name", "is_admin", "roles", "created_at", "used_at", "disabled_at")
    _print_rows(rows, columns, as_json)


@user_app.command("disable", cls=ClientCommand)
def disable_user(
    name: UserName, server: ServerUrl = None, database_url: DatabaseUrl = None
) -> None:
    """Disable a user: all tokens and sessions of the user are revoked at once."""
    with _accounts(database_url, server) as accounts:
        accounts.disable_user(name)
    typer.echo(f"disabled {name}")


@user_app.command("enable", cls=ClientCommand)
def enable_user(name: UserName, server: ServerUrl = None, database_url: DatabaseUrl = None) -> None:
    """Enable a user again, who then needs a link."""
    with _accounts(database_url, server) as accounts:
        accounts.enable_user(name)
    typer.echo(f"enabled {name}: `tune user link {name}` lets the user in")


@project_app.command("add", cls=ClientCommand)
def add_project(
    name: ProjectName,
    weight: Annotated[
        float,
        typer.Option(help="Share of the cluster, relative to other projects."),
    ] = 1.0,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Add a project."""
    with _accounts(database_url, server) as accounts:
        accounts.add_project(name, weight)
    typer.echo(f"added {name}: `tune project grant {name} USER ROLE` adds members")


Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="gpus, trials (at a time), gpu_hours, cost (in all), cost_per_gpu_hour or "
        "cost_per_cpu_hour; without VALUE it is removed. May be repeated.",
    ),
]
Weight = Annotated[
    float | None,
    typer.Option(help="Share of the cluster, relative to others."),
]


@project_app.command("share", cls=ClientCommand)
def project_share(
    name: ProjectName,
    weight: Weight = None,
    limits: Limits = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set a project's weight and limits on the cluster."""
    with _accounts(database_url, server) as accounts:
        now = accounts.set_share("project", name, weight=weight, limits=_limits(limits))
    typer.echo(f"limits of {name}: {_shown(now) or 'none'}")


@user_app.command("share", cls=ClientCommand)
def user_share(
    name: UserName,
    weight: Weight = None,
    limits: Limits = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set a user's weight within projects, and limits over all of them."""
    with _accounts(database_url, server) as accounts:
        now = accounts.set_share("user", name, weight=weight, limits=_limits(limits))
    typer.echo(f"limits of {name}: {_shown(now) or 'none'}")


def _limits(texts: Sequence[str] | None) -> dict[str, float | None]:
    """Read `NAME=VALUE`; without a value, the limit is removed."""
    limits: dict[str, float | None] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            limits[name.strip()] = float(value) if value.strip() else None
        except ValueError:
            raise typer.BadParameter(f"--limit {text}: write a number after =") from None
    return limits


@user_app.command("data", cls=ClientCommand)
def personal_data(
    name: UserName,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Print everything that names a user, as JSON lines, without secrets."""
    from tunesvc.client.wire_format import encode

    with _accounts(database_url, server) as accounts:
        rows = accounts.personal_data(name)
    for row in rows:
        typer.echo(encode(row).decode())


@user_app.command("forget", cls=ClientCommand)
def forget_user(
    name: UserName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Erase a user: account, tokens and alerts, and the name everywhere. Studies stay."""
    if not yes:
        typer.confirm(f"Erase {name} from everything? This cannot be undone", abort=True)
    with _accounts(database_url, server) as accounts:
        pseudonym = accounts.forget_user(name)
    typer.echo(f"erased {name}; {pseudonym!r} stands in its place")


@project_app.command("list", cls=ClientCommand)
def list_projects(
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List your projects."""
    with _accounts(database_url, server) as accounts:
        rows = accounts.projects()
    _print_rows(rows, ("name", "weight", "limits", "members", "studies", "created_at"), as_json)


@project_app.command("members", cls=ClientCommand)
def members(
    name: ProjectName,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the members of a project with their roles."""
    with _accounts(database_url, server) as accounts:
        rows = accounts.members(name)
    _print_rows(rows, ("user", "role", "is_disabled"), as_json)


@project_app.command("grant", cls=ClientCommand)
def grant_role(
    name: ProjectName,
    user: UserName,
    role: Annotated[
        RoleName,
        typer.Argument(help="viewer sees, operator also runs and steers, admin also deletes."),
    ],
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Give a user a role in a project."""
    from tunesvc.db.people.accounts import Role

    with _accounts(database_url, server) as accounts:
        accounts.set_member(name, user, Role(role))
    typer.echo(f"{user} is {role} of {name}")


@project_app.command("remove", cls=ClientCommand)
def remove_member(
    name: ProjectName,
    user: UserName,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Remove a user from a project."""
    with _accounts(database_url, server) as accounts:
        accounts.set_member(name, user, None)
    typer.echo(f"{user} is no member of {name}")


@project_app.command("move", cls=ClientCommand)
def move_study(
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    name: Annotated[
        str | None,
        typer.Argument(help="Its new project; none if left out.", metavar="PROJECT"),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Put a study into a project, whose members then may view it."""
    with _accounts(database_url, server) as accounts:
        accounts.move_study(study, name)
    typer.echo(f"{study} belongs to {name or 'no project'}")


def audit(
    user: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    limit: Limit = 50,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show who changed or tried what at a server, from where, and what came of it."""
    rows: list[Any] = []
    after: str | None = ""
    with _accounts(database_url, server) as accounts:
        while after is not None and len(rows) < limit:
            page = accounts.audit(user=user, after=after, limit=min(1_000, limit - len(rows)))
            rows += page.rows
            after = page.after
    columns = ("at", "user_name", "address", "action", "subject", "outcome")
    _print_rows(rows, columns, as_json)


@contextmanager
def _accounts(database_url: str | None, server: str | None) -> Iterator[AccountOperations]:
    with opened_client(database_url, server) as client:
        yield client.accounts


def _print_secret(issued: IssuedSecret, as_json: bool) -> None:
    from tunesvc.views.terminal import print_json

    if as_json:
        print_json({"user": issued.user, "secret": issued.secret})
    else:
        typer.echo(issued.secret)


def _print_rows(rows: Sequence[Any], columns: Sequence[str], as_json: bool) -> None:
    from tunesvc.views import terminal

    if as_json:
        terminal.print_json(rows)
        return
    table = terminal.table(*(name.removesuffix("_at").replace("_", " ") for name in columns))
    for row in rows:
        table.add_row(*terminal.cells(*(_shown(getattr(row, name)) for name in columns)))
    terminal.out().print(table)


def _shown(value: Any) -> str:
    from datetime import datetime

    from tunesvc.util import formatting

    if isinstance(value, datetime):
        is_past = value <= datetime.now(value.tzinfo)
        return formatting.ago(value) if is_past else f"{value:%Y-%m-%d %H:%M} UTC"
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {role}" for name, role in sorted(value.items()))
    return "–" if value is None else str(value)
