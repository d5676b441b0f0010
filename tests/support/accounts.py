"""Users with every role, and a server that knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import sqlalchemy as sa
from fastapi import FastAPI

from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.accounts import Role, TokenKind
from tunesvc.db.schema.tables import studies
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding
from tunesvc.web.pages.account import provider_sign_in
from tunesvc.web.probes import probe_router

PEOPLE = ("outsider", "viewer", "operator", "manager", "admin")


@dataclass(frozen=True)
class Team:
    """A project with a member of every role, an outsider, and an administrator of the service."""

    database: Database
    project_id: int
    secrets: Mapping[str, str]
    """Tokens by user."""

    def headers(self, user: str | None) -> dict[str, str]:
        """Return the header that authenticates a user; none for None."""
        return {} if user is None else {"Authorization": f"Bearer {self.secrets[user]}"}

    def own(self, study_id: int) -> None:
        """Put a study into the project."""
        change = sa.update(studies).where(studies.c.study_id == study_id)
        with self.database.engine.begin() as connection:
            connection.execute(change.values(project_id=self.project_id))


def make_team(database: Database, project: str = "vision") -> Team:
    """Add users and a project."""
    roles = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "manager": Role.ADMIN}
    secrets = {}
    with database.engine.begin() as connection:
        project_id = accounts.add_project(connection, project)
        for name in PEOPLE:
            user_id = accounts.add_user(connection, name, is_admin=name == "admin")
            if name in roles:
                accounts.set_member(connection, project_id, user_id, roles[name])
            secrets[name] = accounts.create_token(connection, user_id, TokenKind.TOKEN).secret
    return Team(database, project_id, secrets)


@contextmanager
def serving_accounts(
    database: Database, prepare: Callable[[FastAPI], None] | None = None
) -> Iterator[tuple[DashboardServer, httpx.Client]]:
    """A server with accounts on loopback, and a client without any; `prepare` gets its API."""
    made = DashboardServer(database, accounts=Binding(port=0))
    made.app.include_router(probe_router(tuple, bytes))
    made.app.include_router(provider_sign_in.router)
    if prepare is not None:
        prepare(made.app.state.api)
    with (
        made as server,
        httpx.Client(base_url=server.url, headers={"Origin": server.url}) as client,
    ):
        yield server, client
