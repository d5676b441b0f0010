"""The commands that sign in at a server and out: login, logout."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from tunesvc.errors import TuneError

_LINK = "tune_link_"


def login(
    url: Annotated[
        str | None,
        typer.Argument(help="Address of the server.", metavar="URL", show_default=False),
    ] = None,
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="Read the token from standard input."),
    ] = False,
) -> None:
    """Remember a server and a token for it: other commands then use that server.

    Asks for a token, or takes the one in TUNE_TOKEN. The secret of a link is exchanged for a new
    token. Without URL, shows which server is used.
    """
    from tunesvc.client.stored_login import load_login, store_login

    if url is None:
        _show_current(load_login().server)
        return
    server = url.rstrip("/")
    _check_encrypted(server)
    secret = _secret(token_stdin)
    if not re.fullmatch(r"[!-~]+", secret):
        raise TuneError("that is no token: `tune token create` makes one, or an administrator")
    token = _redeemed(server, secret)
    name = _name_of(server, token)
    file = store_login(load_login().with_token(server, token))
    typer.echo(f"signed in at {server} as {name}; the token is in {file}")


def logout() -> None:
    """Forget the server that is used and its token: commands then use the database again."""
    from tunesvc.client.stored_login import load_login, store_login

    current = load_login()
    if current.server is None:
        typer.echo("not signed in anywhere")
        return
    store_login(current.without(current.server))
    typer.echo(f"forgot {current.server}; its token is valid until `tune token revoke`")


def _show_current(server: str | None) -> None:
    if server is None:
        typer.echo("not signed in: commands use the database; `tune login URL` signs in")
        return
    from tunesvc.client.stored_login import load_login

    typer.echo(f"{server} as {_name_of(server, load_login().tokens[server])}")


def _check_encrypted(server: str) -> None:
    parts = urlsplit(server)
    host = parts.hostname or ""
    is_local = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
    if parts.scheme == "http" and not is_local:
        raise TuneError(f"{server} is not encrypted: a token must not travel to it; use https://")


def _secret(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().strip()
    given = os.environ.get("TUNE_TOKEN")
    if given:
        return given
    if not sys.stdin.isatty():
        raise TuneError("there is no terminal to ask for a token: use --token-stdin or TUNE_TOKEN")
    answer: str = typer.prompt("Token, or secret of a link", hide_input=True)
    # Somebody may paste a link as a whole.
    return answer.strip().rpartition("key=")[2]


def _redeemed(server: str, secret: str) -> str:
    if not secret.startswith(_LINK):
        return secret
    from tunesvc.client.remote.http_client import Client

    with Client(server, secret) as client:
        return client.redeem_link(f"tune login on {platform.node()}").secret


def _name_of(server: str, token: str) -> str:
    from tunesvc.client.remote.http_client import Client

    with Client(server, token) as client:
        return client.accounts.me().name
