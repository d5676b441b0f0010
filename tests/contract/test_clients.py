"""One suite for both clients: on the database, and through the API of a server on the same one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.client.interface import TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.remote.http_client import Client
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.errors import BadName, FilterError, SpecError, StudyNotFound, TuneError
from tunesvc.queries.rows import StudyStatus
from tunesvc.web import DashboardServer

HOSTILE = ["a/b", "..", "50 % ?#&+;=:@", "ü 漢 🚀", "%2F", "a//b/", "trials/0"]
"""Names of studies that mean something in an address."""


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    with shared_database.engine.begin() as connection:
        for name in HOSTILE:
            study_records.create(connection, make_spec(name=name), owner="eve")
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture(scope="module", params=["local", "http"])
def client(
    request: pytest.FixtureRequest, server: DashboardServer, shared_database: Database
) -> Iterator[TuneClient]:
    if request.param == "local":
        yield LocalClient(shared_database, "ada")
        return
    with Client(server.url, server.new_token()) as client:
        yield client


def test_studies_come_in_pages_newest_first(client: TuneClient) -> None:
    first = client.studies.page(limit=3)
    rest = client.studies.page(after=first.after or "")
    assert len(first.rows) == 3
    names = [row.name for row in (*first.rows, *rest.rows)]
    assert names == ["bowl", *HOSTILE][::-1]
    assert rest.after is None


def test_studies_are_found_by_their_labels(client: TuneClient) -> None:
    assert [row.name for row in client.studies.page(tags=["nice"]).rows] == ["bowl"]
    assert [row.name for row in client.studies.page(states=[StudyStatus.RUNNING]).rows] == ["bowl"]
    assert {row.name for row in client.studies.page(owner="eve").rows} == set(HOSTILE)
    assert [row.name for row in client.studies.page(search="漢").rows] == ["ü 漢 🚀"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_study_may_have_any_name(client: TuneClient, name: str) -> None:
    assert client.studies.get(name).name == name
    assert client.trials.page(name).rows == ()


def test_a_study_is_returned_with_its_spec(client: TuneClient) -> None:
    assert client.studies.get("bowl").spec == make_spec(name="bowl", tags=["nice"])


def test_trials_come_in_pages_of_any_order(client: TuneClient) -> None:
    pages, after = [], ""
    while True:
        page = client.trials.page("bowl", where="x < 0.5", sort="-x", after=after, limit=7)
        pages.append(page)
        if page.after is None:
            break
        after = page.after
    rows = [row for page in pages for row in page.rows]
    assert len(rows) == client.trials.count("bowl", where="x < 0.5") > 7
    values = [row.params["x"] for row in rows]
    assert values == sorted(values, reverse=True)


def test_a_trial_is_returned_with_its_attempts(client: TuneClient) -> None:
    detail = client.trials.get("bowl", 3)
    assert detail.row.number == 3
    assert [attempt.pid for attempt in detail.attempts] == [103]


def test_a_request_is_answered_and_listed(client: TuneClient) -> None:
    answer = client.commands.send("bowl", "extend", {"trials": 2})
    assert "carries it out" in answer
    newest = client.commands.page("bowl", limit=1)
    assert newest.rows[0].text == "extend by 2 trials"
    client.commands.send("bowl", "pause")
    assert client.commands.page("bowl", limit=1).after is not None


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (StudyNotFound, lambda client: client.studies.get("bowll")),
        (StudyNotFound, lambda client: client.trials.get("bowl", 40)),
        (BadName, lambda client: client.studies.get("a\0b")),
        (FilterError, lambda client: client.trials.page("bowl", where="x <")),
        (TuneError, lambda client: client.trials.page("bowl", sort="nothing")),
        (TuneError, lambda client: client.studies.page(after="x")),
        (SpecError, lambda client: client.commands.send("bowl", "extend", {})),
        (SpecError, lambda client: client.commands.send("bowl", "stop_trial", {"number": 99})),
    ],
)
def test_errors_are_the_same(
    client: TuneClient, shared_database: Database, error: type[TuneError], call: object
) -> None:
    with pytest.raises(error) as local:
        call(LocalClient(shared_database, "ada"))  # type: ignore[operator]
    with pytest.raises(error) as raised:
        call(client)  # type: ignore[operator]
    assert type(raised.value) is type(local.value)
    assert str(raised.value) == str(local.value)
    assert vars(raised.value) == vars(local.value)
