"""The client that a command or a script uses: on the database, or through a server's API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesvc.client.interface import TuneClient


@contextmanager
def opened_client(
    database_url: str | None,
    server: str | None,
    *,
    is_brief: bool = False,
) -> Iterator[TuneClient]:
    """Open the client of a server, or that of a database.

    Without a server and a database, it is the server of `tune login`, if there is one.

    Args:
        database_url: A Postgres; by default `TUNE_DATABASE_URL`, else the embedded one.
        server: Address of the server.
        is_brief: Give up at once where the server does not answer, and migrate no database.

    Raises:
        ServerError: the address is not one of a server.
        DatabaseError: the database cannot be started or reached.
    """
    from tunesvc.client.stored_login import load_login

    login = load_login()
    server = server or (None if database_url else login.server)
    if server:
        from tunesvc.client.remote.connection import RETRY_S
        from tunesvc.client.remote.http_client import Client

        token = os.environ.get("TUNE_TOKEN") or login.tokens.get(server.rstrip("/"))
        with Client(server, token, retry_s=0.0 if is_brief else RETRY_S) as remote:
            yield remote
        return
    from tunesvc.client.local.local_client import LocalClient
    from tunesvc.db.engine.database import open_database
    from tunesvc.util.user import whoami

    with open_database(database_url, migrate=not is_brief) as database:
        yield LocalClient(database, whoami())
