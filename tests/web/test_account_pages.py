"""The pages of accounts: what each role sees and may do there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import BrowserContext, expect

from tests.support.accounts import PEOPLE, Team, make_team, serving_accounts
from tests.support.stored_studies import fill
from tests.web.conftest import Dashboard, forget, violations
from tunesvc.db.engine.database import Database
from tunesvc.queries.operations.account_rows import list_members, list_users
from tunesvc.web import DashboardServer

SECRET = re.compile(r"tune_(?:token|link)_[\w-]{43}")


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    team = make_team(shared_database)
    team.own(fill(shared_database, 4, 1, name="bowl"))
    with shared_database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM leases"))
    return team


@pytest.fixture(scope="module")
def server(team: Team) -> Iterator[DashboardServer]:
    with serving_accounts(team.database) as (server, _):
        yield server


@pytest.fixture(scope="module")
def browsers(server: DashboardServer, team: Team) -> Iterator[dict[str, httpx.Client]]:
    """A signed-in client for each user."""
    clients = {}
    for user in PEOPLE:
        clients[user] = httpx.Client(
            base_url=server.url, headers={"Origin": server.url}, follow_redirects=True
        )
        clients[user].post("/enter", data={"secret": team.secrets[user]})
    yield clients
    for client in clients.values():
        client.close()


def test_a_secret_is_shown_once(browsers: dict[str, httpx.Client], server: DashboardServer) -> None:
    viewer = browsers["viewer"]
    shown = viewer.post("/account/tokens", data={"label": "<b>ci</b>", "days": ""}).text
    (secret,) = set(SECRET.findall(shown))
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{server.url}/api/v1/me", headers=headers).json()["name"] == "viewer"
    again = viewer.get("/account").text
    assert not SECRET.search(again)
    assert "&lt;b&gt;ci&lt;/b&gt;" in again
    newest = re.findall(r"/account/tokens/(\d+)/revoke", again)[0]
    assert browsers["operator"].post(f"/account/tokens/{newest}/revoke").status_code == 404
    assert viewer.post(f"/account/tokens/{newest}/revoke").status_code == 200
    assert httpx.get(f"{server.url}/api/v1/me", headers=headers).status_code == 401


def test_a_user_is_added_with_a_link_and_disabled(
    browsers: dict[str, httpx.Client], server: DashboardServer, team: Team
) -> None:
    admin = browsers["admin"]
    (link,) = set(SECRET.findall(admin.post("/team/users", data={"name": "carol"}).text))
    with httpx.Client(base_url=server.url, headers={"Origin": server.url}) as carol:
        assert carol.post("/enter", data={"secret": link}).status_code == 303
        assert "No studies yet" in carol.get("/studies").text
        assert not SECRET.search(admin.get("/team").text)
        admin.post("/team/users/carol/state", data={"is_disabled": "true"})
        assert carol.get("/studies").status_code == 401
    (row,) = list_users(team.database, "carol")
    assert row.disabled_at is not None
    assert admin.post("/team/users", data={"name": "carol"}).status_code == 409


def test_roles_are_changed_by_those_who_manage_the_project(
    browsers: dict[str, httpx.Client], team: Team
) -> None:
    def roles() -> dict[str, str]:
        return {row.user: row.role for row in list_members(team.database, team.project_id)}

    at = "/team/projects/vision/members"
    assert "Add" in browsers["manager"].get("/team").text
    assert at not in browsers["operator"].get("/team").text
    browsers["manager"].post(at, data={"member": "outsider", "role": "viewer"})
    assert roles()["outsider"] == "viewer"
    browsers["manager"].post(at, data={"member": "outsider", "role": ""})
    assert "outsider" not in roles()
    answer = browsers["operator"].post(at, data={"member": "operator", "role": "admin"})
    assert answer.status_code == 403
    other = browsers["manager"].post("/team/projects/none/members", data={"member": "manager"})
    assert other.status_code == 404
    assert "there is no project" in other.text


def test_what_one_may_not_do_is_not_offered(browsers: dict[str, httpx.Client], team: Team) -> None:
    offers = {
        "viewer": set(),
        "operator": {"/ask/stop", "/ask/note", "/new"},
        "manager": {"/ask/stop", "/ask/note", "/new", "/delete"},
    }
    words = {"/ask/stop", "/ask/note", "/new", "/delete"}
    for user, expected in offers.items():
        client = browsers[user]
        pages = [
            client.get(path).text for path in ("/studies", "/studies/1", "/studies/1/trials/0")
        ]
        text = "".join(pages) + client.get("/studies/1/configuration").text
        links = set(re.findall(r'(?:href|action)="([^"?]*)', text))
        assert {word for word in words if any(link.endswith(word) for link in links)} == expected
        assert ("/audit" in links) is False
    assert 'href="/audit"' in browsers["admin"].get("/studies").text


def test_the_audit_log_is_a_page_and_a_file(browsers: dict[str, httpx.Client]) -> None:
    admin = browsers["admin"]
    admin.post("/team/projects", data={"name": "audited"})
    page = admin.get("/audit").text
    assert "POST /team/projects" in page
    lines = admin.get("/audit/audit.jsonl").text.splitlines()
    assert '"action":"POST /team/projects"' in lines[0]
    assert len(lines) > 1
    assert "Nothing yet" in admin.get("/audit?user=nobody").text
    assert browsers["manager"].get("/audit").status_code == 403


def test_alerts_are_set_on_the_pages_and_their_secrets_stay_hidden(
    browsers: dict[str, httpx.Client],
) -> None:
    viewer = browsers["viewer"]
    url = "json://ann:planted-secret@127.0.0.1:9/hook"  # where nothing listens
    added = viewer.post("/account/alerts", data={"url": url, "kinds": ["failed", "budget"]})
    assert "json://127.0.0.1:9/…" in added.text
    assert "failed, budget" in added.text
    own = viewer.post("/account/alerts", data={"url": url, "study_id": "1"})
    assert own.url.path == "/studies/1/configuration"
    assert own.text.count("json://127.0.0.1:9/…</td>") == 1
    account = viewer.get("/account").text
    (first, second) = re.findall(r"/account/alerts/(\d+)/remove", account)
    tested = viewer.post(f"/account/alerts/{first}/test").text
    assert "did not accept it" in tested
    for text in (added.text, own.text, account, tested):
        assert "planted-secret" not in text
    at = f"/account/alerts/{first}/remove"
    assert at not in browsers["operator"].get("/account").text
    browsers["operator"].post(at)
    assert at in viewer.get("/account").text
    back = viewer.post(f"/account/alerts/{second}/remove", data={"study_id": "1"})
    assert back.url.path == "/studies/1/configuration"
    assert "json://" not in viewer.post(at).text


def test_a_wrong_alert_is_refused_beside_the_form(browsers: dict[str, httpx.Client]) -> None:
    viewer = browsers["viewer"]
    wrong = viewer.post("/account/alerts", data={"url": "nothing://ann:planted-secret@host"})
    assert wrong.status_code == 422
    assert "no address that Apprise knows" in wrong.text
    assert "planted-secret" not in wrong.text
    kind = viewer.post("/account/alerts", data={"url": "json://host", "kinds": ["sunday"]})
    assert kind.status_code == 422
    assert "there is no alert" in kind.text
    hidden = browsers["outsider"].post(
        "/account/alerts", data={"url": "json://host", "study_id": "1"}
    )
    assert hidden.status_code == 404


def test_people_sign_in_by_a_link_in_a_browser(
    server: DashboardServer, team: Team, browsers: dict[str, httpx.Client], context: BrowserContext
) -> None:
    shown = browsers["admin"].post("/team/users/admin/link").text
    (link,) = set(re.findall(r"http://[^<\s]*key=[\w-]+", shown))
    made = Dashboard(server, context.new_page())
    page = made.watch(made.page)
    try:
        page.goto(link)
        assert violations(page) == []
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Studies")).to_be_visible()
        for name in ("Team", "Account", "Audit"):
            page.get_by_role("link", name=name, exact=True).click()
            expect(page).to_have_title(re.compile(f"{name} · tunesvc"))
            if name in ("Team", "Account"):  # the richest ones
                assert violations(page) == []
        page.get_by_role("link", name="Account", exact=True).click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert made.complaints == []
    finally:
        forget(server, page)
