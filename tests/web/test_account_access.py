"""Tokens, sessions and limits over real HTTP."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.support.accounts import Team, make_team, serving_accounts
from tests.support.stored_studies import add, fill
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.people.accounts import TokenKind
from tunesvc.queries.operations.audit_entries import list_audit
from tunesvc.web import DashboardServer
from tunesvc.web.rate_limits import RateLimits

Served = tuple[DashboardServer, httpx.Client]
_REQUEST = re.compile("urn:tunesvc:request:[0-9a-f]+")


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    team = make_team(shared_database)
    for name in ("ours", "theirs"):
        fill(shared_database, 4, 0, name=name)
    team.own(study_id(shared_database, "ours"))
    return team


def study_id(database: Database, name: str) -> int:
    (found,) = database.rows(sa.text(f"SELECT study_id FROM studies WHERE name = '{name}'"))
    return int(found.study_id)


@pytest.fixture(scope="module")
def server(team: Team) -> Iterator[DashboardServer]:
    with serving_accounts(team.database) as (server, _):
        yield server


@pytest.fixture
def client(server: DashboardServer) -> Iterator[httpx.Client]:
    server.app.state.access.limits = RateLimits()
    with httpx.Client(base_url=server.url, headers={"Origin": server.url}) as client:
        yield client


def _secret(team: Team, user: str, kind: TokenKind, hours: float = 1) -> str:
    with team.database.engine.begin() as connection:
        user_id = accounts.find_user(connection, user)
        return accounts.create_token(connection, user_id, kind, lasts=timedelta(hours=hours)).secret


def test_without_a_token_the_api_answers_with_problem_details(client: httpx.Client) -> None:
    answer = client.get("/api/v1/studies")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "tune login" in answer.json()["detail"]
    page = client.get("/studies")
    assert page.status_code == 401
    assert "<h1>Sign in</h1>" in page.text


def test_a_line_end_in_an_address_of_the_api_is_answered_by_the_api(client: httpx.Client) -> None:
    answer = client.get("/api/v1/users/a%0Ab/erasure")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_study_that_one_may_not_view_answers_as_one_that_does_not_exist(
    client: httpx.Client, team: Team
) -> None:
    headers = team.headers("viewer")
    theirs = study_id(team.database, "theirs")
    for at, other in (
        (f"/studies/{theirs}", "/studies/999999"),
        (f"/studies/{theirs}/trials", "/studies/999999/trials"),
        ("/api/v1/studies/theirs", "/api/v1/studies/thiers"),
        ("/api/v1/studies/theirs/trials", "/api/v1/studies/thiers/trials"),
    ):
        hidden, absent = (client.get(path, headers=headers) for path in (at, other))
        assert hidden.status_code == absent.status_code == 404
        names = (("999999", str(theirs)), ("thiers", "theirs"))
        text = absent.text
        for wrong, right in names:
            text = text.replace(wrong, right)
        assert _REQUEST.sub("", hidden.text) == _REQUEST.sub("", text)
    assert client.get("/studies/999999", headers=team.headers("admin")).status_code == 404
    assert client.get(f"/studies/{theirs}", headers=team.headers("admin")).status_code == 200


def test_a_study_without_a_project_is_for_administrators(client: httpx.Client, team: Team) -> None:
    def names(user: str) -> set[str]:
        rows = client.get("/api/v1/studies", headers=team.headers(user)).json()["rows"]
        return {row["name"] for row in rows}

    assert names("admin") >= {"ours", "theirs"}
    assert names("manager") == names("viewer") == {"ours"}
    assert names("outsider") == set()


def test_a_wrong_token_is_refused_whatever_cookie_comes_with_it(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    client.post("/enter", data={"secret": team.secrets["viewer"]})
    assert client.get("/studies").status_code == 200
    secret = team.secrets["viewer"]
    for header in (
        f"Bearer {secret.swapcase()}",
        f"Bearer {secret[:-1]}",
        f"Basic {secret}",
        "Bearer",
        secret,
    ):
        answer = client.get("/studies", headers={"Authorization": header})
        assert answer.status_code == 401, header


def test_signing_in_with_a_token_sets_a_cookie_that_ends_by_signing_out(
    client: httpx.Client, team: Team
) -> None:
    answer = client.post("/enter", data={"secret": f" {team.secrets['viewer']} "})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Max-Age=1209600" in cookie
    assert team.secrets["viewer"] not in cookie
    assert client.get("/studies").status_code == 200
    stolen = dict(client.cookies)
    assert client.post("/leave").status_code == 303
    assert httpx.get(f"{client.base_url}/studies", cookies=stolen).status_code == 401


def test_a_session_that_somebody_has_planted_is_not_adopted(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    """Fault 38: fixation."""
    for planted in ("tune_session_" + "x" * 43, _secret(team, "operator", TokenKind.SESSION)):
        cookie = {"Cookie": f"{server._cookie}={planted}"}
        answer = client.post("/enter", data={"secret": team.secrets["viewer"]}, headers=cookie)
        assert planted not in answer.headers["set-cookie"]
        session = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        assert httpx.get(f"{server.url}/api/v1/me", headers=session).json()["name"] == "viewer"


def test_a_link_signs_in_once_and_only_by_its_form(client: httpx.Client, team: Team) -> None:
    secret = _secret(team, "viewer", TokenKind.LINK)
    for _ in range(2):
        assert secret in client.get(f"/enter?key={secret}").text, "looking ahead uses nothing up"
    assert client.post("/enter", data={"secret": secret}).status_code == 303
    assert client.post("/enter", data={"secret": secret}).status_code == 401
    assert client.get("/studies", headers={"Authorization": f"Bearer {secret}"}).status_code == 401


def test_a_form_of_another_site_signs_nobody_in(client: httpx.Client, team: Team) -> None:
    headers = {"Origin": "http://evil.example"}
    answer = client.post("/enter", data={"secret": team.secrets["admin"]}, headers=headers)
    assert answer.status_code == 403


def test_a_session_expires(client: httpx.Client, team: Team) -> None:
    client.post("/enter", data={"secret": team.secrets["viewer"]})
    with team.database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE tokens SET expires_at = now() - interval '1 s' WHERE kind = 'session'")
        )
    assert client.get("/studies").status_code == 401


def test_guessing_is_slowed_down_but_others_are_not(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    server.app.state.access.limits = RateLimits(failures=3)
    known, other = team.headers("viewer"), team.headers("operator")
    assert client.get("/api/v1/studies", headers=known).status_code == 200
    wrong = {"Authorization": "Bearer tune_token_guess"}
    answers = [client.get("/api/v1/studies", headers=wrong) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert client.get("/api/v1/studies", headers=known).status_code == 200, "it was valid lately"
    assert client.get("/api/v1/studies", headers=other).status_code == 429
    answer = client.post("/enter", data={"secret": "tune_token_guess"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_an_expired_session_does_not_stop_one_from_signing_in(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    server.app.state.access.limits = RateLimits(failures=2)
    stale = {server._cookie: "tune_session_old"}
    for _ in range(5):
        assert httpx.get(f"{server.url}/studies", cookies=stale).status_code == 401
    assert client.post("/enter", data={"secret": team.secrets["viewer"]}).status_code == 303


def _ends_after(stream: httpx.Response, change: Callable[[], None]) -> float:
    """Return how long a stream of events lasts after a change."""
    lines = stream.iter_lines()
    assert stream.status_code == 200
    next(lines)
    change()
    began_s = time.monotonic()
    for _ in lines:
        assert time.monotonic() - began_s < 5
    return time.monotonic() - began_s


def test_an_open_stream_ends_with_its_token_its_user_or_its_role(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    tokens = {}
    with team.database.engine.begin() as connection:
        for name in ("revoked", "disabled", "removed", "stays"):
            user = accounts.add_user(connection, name)
            accounts.set_member(connection, team.project_id, user, accounts.Role.VIEWER)
            tokens[name] = user, accounts.create_token(connection, user, TokenKind.TOKEN)
        add(connection, study_id(team.database, "ours"), 4, 1, running=1)

    def headers(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {tokens[name][1].secret}"}

    def revoke(connection: sa.Connection) -> None:
        accounts.revoke_token(connection, tokens["revoked"][1].token_id)

    def disable(connection: sa.Connection) -> None:
        accounts.disable_user(connection, "disabled")

    def remove(connection: sa.Connection) -> None:
        accounts.set_member(connection, team.project_id, tokens["removed"][0], None)

    with ExitStack() as stack:
        opened = {
            change: stack.enter_context(client.stream("GET", path, headers=headers(name)))
            for change, path, name in (
                (revoke, "/api/v1/events", "revoked"),
                (disable, "/events", "disabled"),
                (remove, "/api/v1/studies/ours/trials/4/logs/stream", "removed"),
            )
        }
        stack.enter_context(client.stream("GET", "/events", headers=headers("stays")))
        for change, stream in opened.items():

            def apply(change: Callable[[sa.Connection], None] = change) -> None:
                with team.database.engine.begin() as connection:
                    change(connection)

            assert _ends_after(stream, apply) < 2.5
        assert [account.name for account in server.hub.accounts()] == ["stays"]


def test_a_page_is_sent_changes_only_of_studies_that_its_user_may_view(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    ours, theirs = (study_id(team.database, name) for name in ("ours", "theirs"))

    def sent_to(user: str) -> list[int]:
        with client.stream("GET", "/events", headers=team.headers(user)) as stream:
            lines = stream.iter_lines()
            while next(lines) != "event: position":
                pass
            server.hub.changed(frozenset({ours, theirs}))
            while next(lines) != "event: changed":
                pass
            found: list[int] = json.loads(next(lines).removeprefix("data: "))
            return found

    assert sent_to("viewer") == [ours]
    assert sent_to("admin") == sorted([ours, theirs])


def test_requests_with_one_token_are_limited(
    client: httpx.Client, server: DashboardServer, team: Team
) -> None:
    server.app.state.access.limits = RateLimits(requests=2)
    headers = team.headers("viewer")
    codes = [client.get("/api/v1/studies", headers=headers).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert client.get("/api/v1/studies", headers=team.headers("admin")).status_code == 200


def test_changes_and_refused_attempts_are_audited_and_reading_is_not(
    client: httpx.Client, team: Team
) -> None:
    ours = study_id(team.database, "ours")
    at = f"/studies/{ours}/ask/note"
    client.get("/studies", headers=team.headers("operator"))
    client.post(at, data={"text": "a secret note"}, headers=team.headers("operator"))
    client.post(at, data={"text": "x"}, headers=team.headers("viewer"))
    client.post("/enter", data={"secret": "tune_token_wrong"})
    entries = list_audit(team.database, limit=3)[::-1]
    assert [(one.user_name, one.action, one.subject, one.outcome) for one in entries] == [
        ("operator", "POST /studies/{study_id}/ask/{ask}", at, 303),
        ("viewer", "POST /studies/{study_id}/ask/{ask}", at, 403),
        ("", "sign in", "", 401),
    ]
    assert {one.address for one in entries} == {"127.0.0.1"}
    assert "secret" not in str(entries)


def test_folders_of_the_server_are_shown_to_administrators_only(
    client: httpx.Client, team: Team, tmp_path: Path
) -> None:
    """Fault 35: the form for a new study looks for its program on the server."""
    (tmp_path / "secret.py").write_text("def train(): ...\n")
    spec = "name: {}\nentrypoint: secret:{}\nmetric: loss\nbudget: {{trials: 1}}\n"
    spec += "parameters: {{x: {{min: 0.0, max: 1.0}}}}\n"

    def check(user: str, folder: str, function: str) -> str:
        form = {"text": spec.format("x", function), "folder": folder}
        return client.post("/new/check", data=form, headers=team.headers(user)).text

    tried = [
        (str(tmp_path), "train"),
        (str(tmp_path), "nothing"),
        ("/nowhere", "train"),
        ("a\0b", "train"),
    ]
    assert len({check("operator", *one).replace(one[1], "") for one in tried}) == 1
    assert len({check("admin", *one).replace(one[1], "") for one in tried}) > 2
    assert str(Path.cwd()) not in client.get("/new", headers=team.headers("operator")).text
    form = {"text": spec.format("stored", "train"), "folder": "a\0b"}
    answer = client.post("/new", data=form, headers=team.headers("operator"))
    assert answer.status_code == 303


def test_an_entry_outlives_its_study(client: httpx.Client, team: Team) -> None:
    gone = fill(team.database, 1, 0, name="gone")
    team.own(gone)
    with team.database.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM leases WHERE study_id = {gone}"))
    path = f"/studies/{gone}/delete"
    assert (
        client.post(path, data={"name": "gone"}, headers=team.headers("manager")).is_success or True
    )
    (entry,) = list_audit(team.database, limit=1)
    assert (entry.user_name, entry.subject, entry.outcome) == ("manager", path, 303)


def test_no_secret_is_logged_or_shown(
    client: httpx.Client, team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    secret = team.secrets["admin"]
    session = client.post("/enter", data={"secret": secret}).cookies
    hidden = (secret, *session.values(), team.database.url)
    caplog.set_level(logging.DEBUG)
    shown = []
    for path in ("/studies", "/cluster", "/nothing", "/studies/x", "/api/v1/studies?limit=x"):
        headers = ({}, {"Authorization": f"Bearer {secret}"})
        shown += [client.get(path, headers=one).text for one in headers]
    shown.append(client.get("/studies", headers={"Authorization": f"Basic {secret}"}).text)
    records = [record.getMessage() for record in caplog.records if record.name != "httpcore"]
    for text in (*shown, *records, str(list_audit(team.database))):
        assert not any(one in text for one in hidden)
