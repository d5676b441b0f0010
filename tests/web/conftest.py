"""A dashboard as people see it: a real server on this test's database, in Debian's Chromium.

Whatever a test does, the page must not complain, ask another server for anything, or open a dialog.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import APIRoute
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.support.accounts import make_team, serving_accounts
from tunesvc.db.engine.database import Database
from tunesvc.web import DashboardServer
from tunesvc.web.account_access import AccountAccess
from tunesvc.web.app import ACCOUNT_PAGES, PAGES
from tunesvc.web.binding import Binding


def routes_of(server: DashboardServer) -> list[APIRoute]:
    """Every route that answers by our own code.

    FastAPI keeps those of included routers to itself.
    """
    own = server.app.routes
    has_accounts = isinstance(server.app.state.access, AccountAccess)
    modules = (*PAGES, *ACCOUNT_PAGES) if has_accounts else PAGES
    included = [route for module in modules for route in module.router.routes]
    found = [route for route in (*own, *included) if isinstance(route, APIRoute)]
    assert len(found) >= len(PAGES), "one for each page at least"
    return found


def violations(page: Page) -> list[str]:
    """Return the accessibility violations that axe calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


CHROMIUM = shutil.which("chromium")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
)


@dataclass
class Dashboard:
    """A server, and a browser that was let in."""

    server: DashboardServer
    page: Page
    complaints: list[str] = field(default_factory=list)
    """Console messages and forbidden requests of the browser. Empty at the end of every test."""

    def open(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(self.server.url + path)
        return self.page

    def watch(self, page: Page) -> Page:
        """Note what a page does wrong."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", self._on_request)
        page.on(
            "dialog",
            lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        )
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, self.server.own_url, "data:", "blob:")):
            self.complaints.append(f"asked another server: {request.url}")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests of pages."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


ON_BOTH = pytest.mark.parametrize(
    "dashboard", ["key", pytest.param("accounts", marks=pytest.mark.slow)], indirect=True
)
"""For a test of pages that is run on a server with accounts as well."""


@contextmanager
def serving(
    database: Database, context: BrowserContext, admits_by: str = "key"
) -> Iterator[Dashboard]:
    """A dashboard on a database, with a browser that was let in; `accounts`: as an administrator."""
    with DashboardServer(
        database, port=0, accounts=Binding(port=0) if admits_by == "accounts" else None
    ) as server:
        made = Dashboard(server, context.new_page())
        made.watch(made.page)
        if admits_by == "accounts":
            made.page.goto(f"{server.own_url}/enter?key={make_team(database).secrets['admin']}")
            made.page.get_by_role("button", name="Sign in").click()
            expect(made.page.get_by_role("heading", name="Studies", exact=True)).to_be_visible()
        else:
            made.page.goto(server.new_address())
        try:
            yield made
        finally:
            forget(server, made.page)


@dataclass(frozen=True)
class LetIn:
    """A server, and a client that was let in: by a key, or with accounts as an administrator."""

    server: DashboardServer
    client: httpx.Client


@contextmanager
def letting_in(database: Database, admits_by: str) -> Iterator[LetIn]:
    """A server of either kind, and a client with its cookie."""
    if admits_by == "key":
        with (
            DashboardServer(database, port=0) as server,
            httpx.Client(base_url=server.url, follow_redirects=True) as client,
        ):
            assert client.get(server.new_address()).status_code == 200
            yield LetIn(server, client)
        return
    secret = make_team(database, "let-in").secrets["admin"]
    with (
        serving_accounts(database) as (server, _),
        httpx.Client(base_url=server.url, follow_redirects=True) as client,
    ):
        ours = {"Origin": server.url}
        assert client.post("/enter", data={"secret": secret}, headers=ours).status_code == 200
        yield LetIn(server, client)


def forget(server: DashboardServer, page: Page) -> None:
    """Close a page, and leave nothing that a later server at the same port would get."""
    everything = {"origin": server.own_url, "storageTypes": "all"}
    page.context.new_cdp_session(page).send("Storage.clearDataForOrigin", everything)
    page.close()


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's memory for all servers, which are other sites to it. As long as one of its pages
    is open, another one opens in half the time."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, timezone_id="UTC", locale="en-GB"
    )
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    context.new_page()
    yield context
    context.close()


@pytest.fixture
def dashboard(
    request: pytest.FixtureRequest, database: Database, context: BrowserContext
) -> Iterator[Dashboard]:
    """A dashboard on this test's own database; see `ON_BOTH`."""
    with serving(database, context, getattr(request, "param", "key")) as made:
        yield made
        assert made.complaints == []


@pytest.fixture(scope="module")
def shared_server(shared_database: Database, context: BrowserContext) -> Iterator[Dashboard]:
    """A dashboard for all tests of a module, on their database and in one page of a browser."""
    with serving(shared_database, context) as made:
        yield made


@pytest.fixture
def shared_dashboard(shared_server: Dashboard) -> Iterator[Dashboard]:
    """The module's dashboard, for one of its tests."""
    shared_server.complaints.clear()
    yield shared_server
    assert shared_server.complaints == []
