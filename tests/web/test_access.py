"""Access by host, origin, key and cookie, on the real server."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from starlette.datastructures import Headers

from tests.integration.test_cluster_view import running
from tests.web.conftest import LetIn, letting_in, routes_of
from tests.web.test_every_route import routes_below
from tunesvc.cli.commands.dashboard import open_browser
from tunesvc.db.engine.database import Database
from tunesvc.db.people import accounts
from tunesvc.db.study_scope import StudyScope
from tunesvc.queries.studies import get_study, get_study_by_id
from tunesvc.runtime import study_requests
from tunesvc.web import DashboardServer
from tunesvc.web.access import KeyAccess, Permission, User
from tunesvc.web.middleware.security import refusal

HOSTS = frozenset({"127.0.0.1:8088", "localhost:8088"})


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture
def client(server: DashboardServer) -> Iterator[httpx.Client]:
    """Let in by the address."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        assert client.get(server.new_address()).status_code == 200
        yield client


ACCOUNTS_FIRST = pytest.mark.parametrize(
    "let_in", [pytest.param("key", marks=pytest.mark.slow), "accounts"], indirect=True
)
"""For walks over all routes, of which a server with accounts has more."""


@pytest.fixture(scope="module", params=["key", "accounts"])
def let_in(request: pytest.FixtureRequest, shared_database: Database) -> Iterator[LetIn]:
    with letting_in(shared_database, request.param) as made:
        yield made


def test_no_browser_is_admitted_without_the_address(server: DashboardServer) -> None:
    for path in ("/studies", "/events"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 401
        assert "tune dashboard" in answer.text


def test_an_address_works_once(server: DashboardServer) -> None:
    address = server.new_address()
    first, second = httpx.Client(follow_redirects=True), httpx.Client(follow_redirects=True)
    assert first.get(address).status_code == 200
    assert second.get(address).status_code == 401
    assert first.get(address).status_code == 200, "an admitted browser may open it again"
    assert second.get(server.url + "/enter?key=guessed").status_code == 401


def test_the_cookie_is_for_this_server_and_no_script(server: DashboardServer) -> None:
    cookie = httpx.get(server.new_address()).headers["set-cookie"]
    assert f"tunesvc_{server.port}=" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


BROWSER = {"user-agent": "Mozilla/5.0 Firefox/140.0", "sec-fetch-dest": "document"}


def test_browsers_are_sent_to_a_host_whose_cookies_no_other_server_gets(
    server: DashboardServer,
) -> None:
    answer = httpx.get(f"{server.url}/studies?q=a", headers=BROWSER)
    assert answer.status_code == 307
    assert (
        answer.headers["location"]
        == f"http://tunesvc-{server.port}.localhost:{server.port}/studies?q=a"
    )
    own = {"host": f"tunesvc-{server.port}.localhost:{server.port}"}
    assert httpx.get(f"{server.url}/studies", headers=BROWSER | own).status_code == 401


def test_a_page_that_was_asked_for_before_entering_is_opened_after_it(
    server: DashboardServer,
) -> None:
    headers = BROWSER | {"host": f"tunesvc-{server.port}.localhost:{server.port}"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        assert client.get("/cluster?a=b").status_code == 401
        assert client.get(server.new_address()).headers["location"] == "/cluster?a=b"
        assert client.get("/cluster").status_code == 200
        from_a_file = client.get(server.new_address(), headers={"sec-fetch-site": "cross-site"})
        assert from_a_file.status_code == 200, (
            "no redirect, along which no strict cookie would be sent"
        )
        assert 'content="0; url=/studies"' in from_a_file.text


@pytest.mark.parametrize(
    "at",
    [
        *("//evil.example", "/\\evil.example", "http://evil.example", "/enter?key=x"),
        *('"/\\011/evil.example"', '"/\\012/evil.example"', '"\\011//evil.example"'),
    ],
)
def test_no_other_page_is_opened_after_entering(server: DashboardServer, at: str) -> None:
    cookies = {f"tunesvc_page_{server.port}": at}
    answer = httpx.get(server.new_address(), cookies=cookies)
    assert answer.headers["location"] == "/studies"


def test_only_a_form_changes_something(
    client: httpx.Client, server: DashboardServer, shared_database: Database
) -> None:
    running(shared_database)
    study = get_study(shared_database, "test").study_id
    ours = {"origin": server.url}
    assert (
        client.post(f"/studies/{study}/ask/note", data={"text": "mine"}, headers=ours).status_code
        == 200
    )
    answer = client.post(f"/studies/{study}/ask/note", json={"text": "other"}, headers=ours)
    assert answer.status_code == 403
    assert "not a form" in answer.text
    assert get_study_by_id(shared_database, study).note == "mine"


def test_only_so_many_pages_may_listen(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesvc.web.pages.live.STREAMS_MAX", 1)
    with client.stream("GET", "/events") as first:
        assert first.status_code == 200
        lines = first.iter_lines()
        next(lines)
        assert client.get("/events").status_code == 503


def test_the_key_is_not_among_the_arguments_of_the_browser(
    server: DashboardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    open_browser(server)
    (address,) = opened
    file = Path(urlsplit(address).path)
    assert "key=" not in address
    assert f"{server.url}/enter?key=" in file.read_text()
    assert file.parent.stat().st_mode & 0o077 == 0


@ACCOUNTS_FIRST
def test_a_foreign_host_is_refused_on_every_route(let_in: LetIn) -> None:
    """Fault 38: DNS rebinding."""
    for path in sorted({re.sub(r"\{\w+\}", "1", path) for _, path in _routes(let_in.server)}):
        answer = let_in.client.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 403, path


@pytest.mark.parametrize(
    "host", ["evil.example:8088", "127.0.0.1", "127.0.0.1.evil.example:8088", ""]
)
def test_no_name_but_our_own_is_a_host(host: str) -> None:
    """Fault 38."""
    assert refusal("GET", Headers({"host": host}), HOSTS)


@ACCOUNTS_FIRST
@pytest.mark.parametrize(
    "headers",
    [
        {},
        *(
            pytest.param(headers, marks=pytest.mark.slow)
            for headers in (
                {"Origin": "http://evil.example"},
                {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            )
        ),
    ],
    ids=str,
)
def test_every_change_must_come_from_our_pages(let_in: LetIn, headers: dict[str, str]) -> None:
    """Fault 38: cross-site requests to every route, with the cookie of an administrator."""
    form = headers | {"Content-Type": "application/x-www-form-urlencoded"}
    for method, path in sorted(_routes(let_in.server)):
        at = re.sub(r"\{\w+\}", "1", path)
        if method not in ("GET", "HEAD"):
            answer = let_in.client.request(method, at, headers=form, content=b"name=evil")
            assert answer.status_code == 403, (method, path)
            assert answer.text.startswith("refused: "), (method, path)


@pytest.mark.slow
def test_a_foreign_origin_is_refused_on_every_route(let_in: LetIn) -> None:
    """Fault 38: a page of another site, which may have got hold of a token, too."""
    headers = {"Origin": "http://evil.example", "Authorization": "Bearer tune_token_x"}
    for method, path in sorted(_routes(let_in.server)):
        at = re.sub(r"\{\w+\}", "1", path)
        assert let_in.client.request(method, at, headers=headers).status_code == 403, (method, path)


@pytest.mark.parametrize(
    "origin", ["null", "http://127.0.0.1", "http://127.0.0.1:1", "file://", "127.0.0.1:8088", ""]
)
def test_no_origin_but_our_own_may_ask(origin: str) -> None:
    """Fault 38."""
    for method in ("GET", "POST", "DELETE"):
        assert refusal(method, Headers({"host": "127.0.0.1:8088", "origin": origin}), HOSTS)
        assert not refusal(
            method, Headers({"host": "127.0.0.1:8088", "origin": "http://127.0.0.1:8088"}), HOSTS
        )


def test_a_change_must_come_from_a_form_of_ours(let_in: LetIn) -> None:
    """Fault 38: a form of another site, from a browser that hides its origin."""
    client, server = let_in.client, let_in.server
    assert client.post("/studies").status_code == 403
    assert client.post("/studies", headers={"Origin": server.url}).status_code == 405
    assert client.post("/studies", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_every_answer_bears_the_policy(let_in: LetIn) -> None:
    api = ("/api/v1/studies", "/api/v1/nothing", "/api/v1/studies?limit=x")
    for path in ("/studies", "/nothing", "/static/style.css", "/studies?sort=none", *api):
        policy = let_in.client.get(path).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; script-src 'self';")


def test_every_route_asks_for_a_permission(server: DashboardServer) -> None:
    """All routes ask the one module that decides: a route without `may(...)` would be open to
    everyone."""
    open_to_all = {"/", "/enter"}
    for route in routes_of(server):
        if route.path not in open_to_all:
            assert "may.<locals>.check" in _asks(route.dependant), route.path


class Own:
    """Admits a user with all permissions for one study, which is alone in its project."""

    def __init__(self, study_id: int, project_id: int) -> None:
        self.study_id = study_id
        self.project_id = project_id

    def user(self, request: object) -> User:
        return User("bob")

    def allows(self, user: User, permission: Permission, study_id: int | None) -> bool:
        return study_id in (None, self.study_id)

    def viewable(self, user: User) -> StudyScope:
        return StudyScope(frozenset({self.project_id}))


def test_lists_show_only_what_one_may_view(
    server: DashboardServer, shared_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulations = [
        running(shared_database, name=name, parallelism=2, parameters=PARAMETERS)
        for name in ("mine", "theirs")
    ]
    mine, theirs = (simulation.record.study_id for simulation in simulations)
    with shared_database.engine.begin() as connection:
        project = accounts.add_project(connection, "own")
    simulations[0].sql(f"UPDATE studies SET project_id = {project} WHERE study_id = {mine}")
    for study_id, word in ((mine, "public"), (theirs, "secret")):
        study_requests.tag(shared_database, study_id, None, add=[f"{word}-tag"], asked_by="ada")
        simulations[0].sql(f"UPDATE studies SET owner = '{word}-owner' WHERE study_id = {study_id}")
        simulations[0].sql(f"UPDATE leases SET owner = '{word}-box:1' WHERE study_id = {study_id}")
    monkeypatch.setitem(server.app.state._state, "access", Own(mine, project))
    with httpx.Client(base_url=server.url, headers={"Origin": server.url}) as client:
        for path in ("/studies", "/studies?q=the", "/cluster", "/new"):
            text = client.get(path).text
            assert "theirs" not in text, path
            assert "secret" not in text, path
        assert "public-tag" in client.get("/studies").text
        assert "mine trial 0" in client.get("/cluster").text
        spec = "name: x\ncommand: a\nmetric: {name: loss}\nparameters: {x: {min: 0.0, max: 1.0}}\n"
        spec += "budget: {trials: 5}\nwarm_start: [theirs]\n"
        answer = client.post("/new/check", data={"text": spec, "folder": "/"})
        assert "there is no study named &#39;theirs&#39;" in answer.text
        for path in (
            f"/studies/{theirs}",
            f"/compare?studies={mine},{theirs}",
            f"/new?copy={theirs}",
        ):
            assert client.get(path).status_code == 404, path


PARAMETERS = {"x": {"type": "float", "min": 0.0, "max": 1.0}}


def test_only_so_many_browsers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesvc.web.access.SESSIONS_MAX", 2)
    access = KeyAccess("user", "cookie")
    sessions = [access._exchange(access.new_key()) for _ in range(3)]
    assert None not in sessions
    assert len(access._sessions) == 2


def _asks(dependant: Dependant) -> Iterator[str]:
    for one in dependant.dependencies:
        yield getattr(one.call, "__qualname__", "")
        yield from _asks(one)


def _routes(server: DashboardServer) -> set[tuple[str, str]]:
    """Method and path of every route, those of the API too."""
    pairs = (route.partition(" ") for route in routes_below(server.app))
    return {(method, path) for method, _, path in pairs}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%252e%252e/app.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/vendor/..%5c..%5capp.py",
        "/static/style.css%00.py",
        "/static/../../../../../../../etc/passwd",
        "/studies/..%2f..%2fetc%2fpasswd",
        "/studies/1;ls",
        "/studies/-1",
        "/studies/99999999999999999999",
        "/api/v1/../../etc/passwd",
        "/api/v1/studies/..%2f..%2fetc%2fpasswd",
        "/api/v1/studies/%252e%252e%252fetc%252fpasswd/trials",
        "/api/v1/studies/a%00b",
        "/api/v1/snapshots/..%2f..%2fetc%2fpasswd",
        "/api/v1/studies/a/trials/0/checkpoints/..%2f..%2f..%2fetc%2fpasswd",
    ],
)
def test_no_address_leads_to_a_file_of_the_server(let_in: LetIn, path: str) -> None:
    """Fault 35: the path is sent as it stands, not as a polite client would mend it."""
    client, server = let_in.client, let_in.server
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        raw.sendall(asked.encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode(errors="replace")
    assert answer.split()[1] in ("404", "422")
    assert "def make_app" not in answer
    assert "root:" not in answer


def test_a_mistake_is_a_page_with_a_number_that_the_log_has(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise RuntimeError("the password is secret")

    monkeypatch.setattr("tunesvc.web.pages.cluster.get_cluster", wrong)
    answer = client.get("/cluster")
    assert answer.status_code == 500
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "secret" not in answer.text
    found = re.search(r"error ([0-9a-f]{8})", answer.text)
    assert found is not None
    assert found[1] in caplog.text
    assert "the password is secret" in caplog.text
