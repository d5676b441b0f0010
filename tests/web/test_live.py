"""Live changes: the studies that are watched, the pages that are notified, and outages."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import optuna
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from tests.support.specs import make_spec
from tests.web.conftest import Dashboard
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Decision
from tunesvc.web import DashboardServer
from tunesvc.web.live.sse import EventHub, EventStream, page_events
from tunesvc.web.live.study_names import NewsReader, StudyNames
from tunesvc.web.live.watcher import LISTENING_POLL_S, POLL_S, Watcher


@dataclass
class Heard:
    """An audience that remembers."""

    changes: list[frozenset[int]] = field(default_factory=list)
    outages: list[str] = field(default_factory=list)

    def changed(self, studies: frozenset[int]) -> None:
        self.changes.append(studies)

    def stale(self, since: datetime, reason: str) -> None:
        self.outages.append(reason)

    def fresh(self) -> None:
        self.outages.append("")


@pytest.fixture
def server(database: Database) -> Iterator[DashboardServer]:
    with DashboardServer(database, port=0) as server:
        yield server


@pytest.fixture
def client(server: DashboardServer) -> Iterator[httpx.Client]:
    """Let in."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        client.get(server.new_address())
        yield client


class Steps:
    """A clock that a test moves."""

    now_s = 0.0

    def now(self) -> float:
        return self.now_s


@pytest.fixture
def study_id(database: Database) -> int:
    with database.engine.begin() as connection:
        return study_records.create(connection, make_spec()).study_id


@pytest.fixture
def clock() -> Steps:
    return Steps()


@pytest.fixture
def watching(database: Database, clock: Steps) -> Iterator[tuple[Watcher, Heard]]:
    """A watcher that listens and has looked once."""
    heard = Heard()
    watcher = Watcher(database, heard, clock)
    watcher.step(0)
    yield watcher, heard
    watcher._drop_listener()


def test_a_commit_is_heard_of_at_once(
    database: Database, study_id: int, watching: tuple[Watcher, Heard]
) -> None:
    watcher, heard = watching
    study_writer = StudyWriter.open(database, study_id)
    study_writer.commit(StudyChanges(decisions=[Decision(None, "stop", "enough", {})]))
    watcher.step(5)
    assert heard.changes == [frozenset({study_id})]


def test_a_lease_that_is_renewed_is_no_change(
    database: Database, study_id: int, watching: tuple[Watcher, Heard]
) -> None:
    watcher, heard = watching
    study_writer = StudyWriter.open(database, study_id)
    study_writer.commit(StudyChanges(active_s=2.5))
    watcher.step(0)
    assert heard.changes == []


def test_a_trial_that_ends_through_optunas_api_is_heard_of(
    database: Database, watching: tuple[Watcher, Heard]
) -> None:
    watcher, heard = watching
    study = optuna.create_study(storage=PgStorage(database))
    study.tell(study.ask(), 1.0)
    watcher.step(5)
    assert heard.changes == [frozenset({study._study_id})]


def test_without_a_listening_connection_changes_are_polled(
    database: Database, study_id: int, watching: tuple[Watcher, Heard], clock: Steps
) -> None:
    """Fault 29."""
    watcher, heard = watching
    _cut_listeners(database)
    _step_until(watcher, lambda: watcher._listener is None)
    assert heard.outages == []
    StudyWriter.open(database, study_id).commit(
        StudyChanges(decisions=[Decision(None, "stop", "enough", {})])
    )
    clock.now_s += POLL_S
    watcher.step(0)
    assert heard.changes == [frozenset({study_id})]


def test_lost_notifications_are_made_up_for(
    database: Database, study_id: int, watching: tuple[Watcher, Heard], clock: Steps
) -> None:
    """Fault 29: a pooler that swallows LISTEN keeps the connection, and nothing arrives on it."""
    watcher, heard = watching
    assert watcher._listener is not None
    with watcher._listener._driver.cursor() as cursor:
        cursor.execute("UNLISTEN *")
    StudyWriter.open(database, study_id).commit(
        StudyChanges(decisions=[Decision(None, "stop", "enough", {})])
    )
    clock.now_s += LISTENING_POLL_S
    watcher.step(0)
    assert heard.changes == [frozenset({study_id})]


def test_an_outage_is_announced_once_and_so_is_its_end(
    watching: tuple[Watcher, Heard], set_away: Callable[[bool], None], clock: Steps
) -> None:
    watcher, heard = watching
    set_away(True)
    _step_until(watcher, lambda: bool(heard.outages))
    for _ in range(3):
        watcher.step(0)
        clock.now_s += POLL_S
    assert len(heard.outages) == 1
    assert heard.outages[0]
    set_away(False)
    for _ in range(3):
        watcher.step(0)
        clock.now_s += POLL_S
    assert heard.outages[1:] == [""]


@pytest.mark.usefixtures("study_id")
def test_an_open_page_says_since_when_it_is_stale_and_recovers(
    dashboard: Dashboard, set_away: Callable[[bool], None], database: Database
) -> None:
    """Fault 30: the database goes away under a browser."""
    page = dashboard.open("/studies")
    banner = page.locator("#stale")
    expect(banner).to_be_hidden()
    set_away(True)
    expect(banner).to_have_text(re.compile(r"Stale since .*the database is away"), timeout=15_000)
    expect(page.locator("tbody th a")).to_have_text("test"), "what was shown stays"
    page.goto(dashboard.server.url + "/studies")
    expect(page.get_by_role("heading", name="The database is away")).to_be_visible()
    set_away(False)
    expect(page.locator("tbody th a")).to_have_text("test", timeout=15_000)
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="after"))
    expect(page.locator("tbody tr")).to_have_count(2)
    dashboard.complaints[:] = [one for one in dashboard.complaints if "503" not in one]


def test_a_page_that_reads_nothing_is_dropped_and_costs_a_set_until_then(
    shared_database: Database,
) -> None:
    """Fault 31."""

    async def scenario() -> None:
        hub, sent = EventHub(), []
        may_send = asyncio.Event()
        may_send.set()

        async def send(message: Any) -> None:
            await may_send.wait()
            sent.append(message)

        async def receive() -> Any:
            return await asyncio.Event().wait()

        answering = asyncio.create_task(
            EventStream(page_events(hub, NewsReader(StudyNames(shared_database))), stall_s=0.2)(
                {"type": "http"}, receive, send
            )
        )
        while len(sent) < 3:
            await asyncio.sleep(0)
        may_send.clear()
        for study in range(100_000):
            hub.changed(frozenset({study % 50}))
        await asyncio.wait_for(answering, 5)
        assert len(hub) == 0
        assert all(message.get("more_body", True) for message in sent), (
            "cut off, not ended in order"
        )

    with ThreadPoolExecutor() as other:  # the browser's tests leave a loop running in this thread
        other.submit(asyncio.run, scenario()).result()


def test_five_hundred_pages_that_do_not_listen_leave_the_others_alone(
    database: Database, study_id: int
) -> None:
    """Fault 31."""
    with DashboardServer(database, port=0) as server, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=server.url, follow_redirects=True))
        client.get(server.new_address())
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        asked = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {cookie}\r\n\r\n".encode()
        for _ in range(500):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            deaf.sendall(asked)
        _wait_until(lambda: len(server.hub) == 500)
        with client.stream("GET", "/events", timeout=10) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 1000"
            StudyWriter.open(database, study_id).commit(
                StudyChanges(decisions=[Decision(None, "stop", "enough", {})])
            )
            began_s = time.monotonic()
            assert "event: changed" in lines
            assert next(lines) == f"data: [{study_id}]"
            assert time.monotonic() - began_s < LISTENING_POLL_S
        assert client.get("/studies").status_code == 200


def test_a_stream_says_at_which_position_it_opens(
    server: DashboardServer, client: httpx.Client
) -> None:
    """A page that was read before a change, and listens after it, knows that it has missed one."""
    read = re.search(r'data-position="([\w-]+)"', client.get("/studies").text)
    assert read is not None
    assert _opened_at(client) == read[1]
    server.hub.changed(frozenset({1}))
    missed = _opened_at(client)
    assert missed != read[1]
    assert f'data-position="{missed}"' in client.get("/studies").text


def _opened_at(client: httpx.Client) -> str:
    with client.stream("GET", "/events", timeout=10) as stream:
        lines = stream.iter_lines()
        assert "event: position" in lines
        return next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")


def _step_until(watcher: Watcher, condition: Callable[[], bool]) -> None:
    """The server says good-bye first, and closes the connection a little later."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        watcher.step(0.1)


def _cut_listeners(database: Database) -> None:
    with database.engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )


def _wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hidden_tab_gives_its_connection_back(
    dashboard: Dashboard, database: Database, study_id: int
) -> None:
    """Browsers hold six connections to a server: with six tabs open, a seventh would get no
    answer."""
    page = dashboard.open("/studies")
    hub = dashboard.server.hub
    _wait_until(lambda: len(hub) == 1)
    _show(page, False)
    _wait_until(lambda: len(hub) == 0)
    with database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="meanwhile"))
    _show(page, True)
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_stream_that_was_refused_once_is_asked_for_again(
    dashboard: Dashboard, study_id: int
) -> None:
    """A proxy whose server restarts answers for it; no browser asks for a stream again after
    that."""
    page = dashboard.page
    page.route("**/events", lambda route: route.fulfill(status=502))
    dashboard.open("/studies")
    expect(page.locator("#stale")).to_be_visible()
    page.unroute("**/events")
    expect(page.locator("#stale")).to_be_hidden()
    assert len(dashboard.server.hub) == 1
    dashboard.complaints[:] = [one for one in dashboard.complaints if "502" not in one]


def _show(page: Page, is_shown: bool) -> None:
    """As if its tab were brought to the front, or another one."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        not is_shown,
    )


def test_a_mistake_while_looking_is_an_outage_too(
    database: Database, watching: tuple[Watcher, Heard], clock: Steps
) -> None:
    """Another program may have changed the schema under an open dashboard."""
    watcher, heard = watching
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE leases RENAME TO hidden"))
    clock.now_s += LISTENING_POLL_S
    watcher.step(0)
    assert ['relation "leases" does not exist' in text for text in heard.outages] == [True]
    with database.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE hidden RENAME TO leases"))
    for _ in range(2):
        watcher.step(0)
    assert heard.outages[1:] == [""]
