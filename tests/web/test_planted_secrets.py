"""Secrets that were planted everywhere, and everything that a server with accounts shows or logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from typer.testing import CliRunner

from tests.integration.test_cluster_view import running
from tests.support.accounts import Team, make_team
from tests.web.test_every_route import APART, API, expected_of, routes_below
from tests.web.test_hostile_texts import filled
from tunesvc.cli import app
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.accounts import TokenKind
from tunesvc.queries.studies import get_study
from tunesvc.service.readiness import find_problems
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding
from tunesvc.web.identity_provider import ProviderSettings
from tunesvc.web.probes import probe_router
from tunesvc.web.rate_limits import RateLimits

PLANTED = "planted"
"""In every secret but those that the server itself makes."""
ALERTS = (
    "json://ann:planted-word@127.0.0.1:9/planted-path?planted-key=planted-value",
    "slack://planted123/planted12/planted1planted1planted1/#general",
    "tgram://123456789:planted_planted_planted_planted_pla/12345",
    "discord://1234plantedhook/planted-token",
)


@dataclass(frozen=True)
class Planted:
    """A server full of secrets, with an administrator's session."""

    server: DashboardServer
    client: httpx.Client
    team: Team
    secrets: tuple[str, ...]

    def assert_hidden(self, text: str, where: str) -> None:
        assert PLANTED not in text, where
        assert not any(secret in text for secret in self.secrets), where


class _Supervisor:
    problem = ""


@pytest.fixture
def planted(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    monkeypatch.setenv("TUNE_ARTIFACTS", "s3://planted-id:planted-store@bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-aws")
    password = database.engine.url.password
    assert password
    team = make_team(database)
    running(database, name="test")
    team.own(get_study(database, "test").study_id)
    with database.engine.begin() as connection:
        user = accounts.find_user(connection, "viewer")
        link = accounts.create_token(connection, user, TokenKind.LINK).secret
    provider = ProviderSettings("http://127.0.0.1:9", "tunesvc", "planted-client-secret")
    made = DashboardServer(database, accounts=Binding(port=0), provider=provider)
    made.app.include_router(probe_router(lambda: find_problems(database, _Supervisor()), bytes))  # type: ignore[arg-type]
    with made as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.headers["Origin"] = server.url
        client.post("/enter", data={"secret": team.secrets["admin"]})
        secrets = (*team.secrets.values(), *client.cookies.values(), link, password)
        server.app.state.access.limits = RateLimits(failures=1_000)
        yield Planted(server, client, team, secrets)


@pytest.mark.slow
def test_no_planted_secret_is_shown_or_logged(
    planted: Planted, caplog: pytest.LogCaptureFixture, set_away: Callable[[bool], None]
) -> None:
    caplog.set_level(logging.DEBUG, logger="tunesvc")
    client = planted.client
    admin = planted.team.headers("admin")
    for url in ALERTS:
        answer = client.post(f"{API}/alerts", json={"url": url}, headers=admin)
        planted.assert_hidden(answer.text, url)
        if url.startswith("json://127.0.0.1"):  # the others are delivered elsewhere
            tested = client.post(f"{API}/alerts/{answer.json()}/test", headers=admin)
            planted.assert_hidden(tested.text, url)
    assert client.get(f"{API}/alerts").json(), "at least one of them was taken"
    for body in ({"url": f"nothing://{PLANTED}"}, {"url": PLANTED}):
        refused = client.post(f"{API}/alerts", json=body, headers=admin)
        assert refused.status_code == 422
        planted.assert_hidden(refused.text, str(body))
    digest = "ab" * 32
    stored = client.put(f"{API}/snapshots/{digest}", content=b"x", headers=admin)
    assert stored.status_code >= 400
    planted.assert_hidden(stored.text, "the artifact store")
    for secret in planted.secrets:
        for wrong in (f"Bearer {secret[:-1]}", f"Basic {secret}"):
            planted.assert_hidden(
                client.get("/studies", headers={"Authorization": wrong}).text, wrong
            )
        for parameter in ("token", "access_token", "key"):
            asked = httpx.get(f"{client.base_url}{API}/me", params={parameter: secret})
            assert asked.status_code == 401, "no secret in an address counts"
    _assert_hidden_everywhere(planted)
    for token in (planted.team.secrets["admin"], planted.team.secrets["admin"][:-1]):
        line = ["doctor", "--server", planted.server.url]
        checked = CliRunner().invoke(app, line, env={"TUNE_TOKEN": token})
        assert "Server" in checked.output
        planted.assert_hidden(checked.output.replace("\n", ""), "tune doctor")
        assert token not in checked.output
    set_away(True)
    _assert_hidden_everywhere(planted, is_away=True)
    assert client.get("/readyz").status_code == 503
    set_away(False)
    for record in caplog.records:
        planted.assert_hidden(logging.Formatter().format(record), "the log")
    planted.assert_hidden(repr(planted.server.app.state.provider), "repr")
    planted.assert_hidden(repr(planted.server.app.state.database), "repr")


def _assert_hidden_everywhere(planted: Planted, *, is_away: bool = False) -> None:
    study = str(get_study(planted.team.database, "test").study_id) if not is_away else "1"
    asked = 0
    for route in sorted(set(routes_below(planted.server.app)) - APART):
        method, _, path = route.partition(" ")
        if method != "GET" or path.endswith("/stream") or expected_of(route) is None:
            continue
        if is_away and asked > 10 and path not in ("/readyz", "/metrics", "/provider/start"):
            continue  # each waits for the database
        answer = planted.client.get(filled(path, study))
        planted.assert_hidden(answer.text + str(answer.headers), route)
        asked += 1
    assert asked > 10
