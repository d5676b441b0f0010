"""The client of a command: of a server, or of a database.

`--server` decides, then TUNE_SERVER, then `tune login`; without any of them, and with
`--database-url` on the command line, it is a database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer

from tunesvc.cli.help import HelpCommand

if TYPE_CHECKING:
    from tunesvc.client.interface import TuneClient

_SERVER = "server"
_DATABASE = "database_url"
_context: ContextVar[typer.Context | None] = ContextVar("context", default=None)
"""The command that runs."""


class ClientCommand(HelpCommand):
    """A command that does the same on a database and on a server."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; `opened_client` then knows the options."""
        token = _context.set(ctx)
        try:
            return super().invoke(ctx)
        finally:
            _context.reset(token)


class MachineCommand(HelpCommand):
    """A command that only works on this machine."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, unless a server is named for it."""
        refuse_server(ctx)
        return super().invoke(ctx)


def refuse_server(ctx: Any, what: str = "") -> None:
    """Refuse `--server`.

    Raises:
        typer.BadParameter: it is on the command line.
    """
    if _is_typed(ctx.find_root(), _SERVER):
        what = what or f"`{ctx.command_path}`"
        raise typer.BadParameter(f"{what} works on this machine only: leave --server out")


@contextmanager
def opened_client(database_url: str | None, server: str | None = None) -> Iterator[TuneClient]:
    """Open the client that options and environment choose.

    Args:
        database_url: Option of the command.
        server: Option `--server` of the command, or TUNE_SERVER.
    """
    from tunesvc.client import opened_client as clients

    with clients.opened_client(database_url, chosen_server(server)) as client:
        yield client


def chosen_server(server: str | None = None) -> str | None:
    """Return the server that options and environment choose; None for a database.

    Raises:
        typer.BadParameter: both a server and a database are on the command line.
    """
    from tunesvc.client.stored_login import load_login

    typed = typed_server()
    ctx = _context.get()
    if ctx is not None and _is_typed(ctx, _DATABASE):
        if typed is not None:
            raise typer.BadParameter("give either --server or --database-url")
        return None
    return typed or server or os.environ.get("TUNE_SERVER") or load_login().server


def typed_server() -> str | None:
    """Return the server of the command line, after the command or before it; None without one."""
    ctx = _context.get()
    for one in () if ctx is None else (ctx, ctx.find_root()):
        if _is_typed(one, _SERVER):
            typed: str = one.params[_SERVER]
            return typed
    return None


def _is_typed(ctx: Any, option: str) -> bool:
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
