"""The API over HTTP: entity tags, idempotency keys, problem details, streams and limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import optuna
import pytest

from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.client.remote.event_source import ServerEvent, read_events
from tunesvc.client.remote.http_client import Client
from tunesvc.db import stored_answers, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import DatabaseUnavailable, ServerError
from tunesvc.queries.studies import get_study
from tunesvc.runtime import study_requests
from tunesvc.web import DashboardServer
from tunesvc.web.app import BODY_MAX
from tunesvc.web.live.sse import EventHub

PROBLEM = "application/problem+json"
Api = httpx.Client


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 10, name="bowl")
    with shared_database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="idle"))
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: DashboardServer) -> Iterator[Api]:
    headers = {"Authorization": f"Bearer {server.new_token()}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers) as api:
        yield api


def test_the_document_is_served_with_every_route(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert document["servers"] == [{"url": "/api/v1"}]
    assert {"/studies", "/studies/{study}/trials", "/events"} <= document["paths"].keys()
    content = document["paths"]["/studies"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/yaml"}
    failure = document["paths"]["/studies/{study}"]["get"]["responses"]["4XX"]
    assert failure["content"].keys() == {PROBLEM}


def test_an_error_is_a_problem_with_its_remedy(api: Api) -> None:
    answer = api.get("/studies/bowls")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["type"] == "urn:tunesvc:StudyNotFound"
    assert problem["title"] == "No study of that name"
    assert problem["status"] == 404
    assert "did you mean 'bowl'?" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("DELETE", "/studies", 405),
        ("GET", "/studies?limit=0", 422),
        ("GET", "/studies/bowl/trials/x", 422),
        ("POST", "/studies/bowl/commands", 422),
    ],
)
def test_what_is_not_understood_is_a_problem_too(
    api: Api, method: str, path: str, status: int
) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json()["detail"]


def test_without_a_token_nothing_is_answered(server: DashboardServer) -> None:
    answer = httpx.get(f"{server.url}/api/v1/studies")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:tunesvc:Unauthenticated"
    assert httpx.get(f"{server.url}/api/v1/studies/nothing").status_code == 401


def test_a_browser_s_cookie_changes_nothing_through_json(server: DashboardServer) -> None:
    """Fault 38: a request of another site bears the cookie, and never a token."""
    with httpx.Client(base_url=server.url, follow_redirects=True) as browser:
        browser.get(server.new_address())
        assert browser.get("/api/v1/studies").status_code == 200
        answer = browser.post("/api/v1/studies/idle/commands", json={"kind": "stop"})
        assert answer.status_code == 403


def test_an_unchanged_study_is_not_sent_again(api: Api, shared_database: Database) -> None:
    for path in ("/studies/idle", "/studies/idle/trials", "/studies/idle/overview"):
        tag = api.get(path).headers["etag"]
        unchanged = api.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
        study_id = get_study(shared_database, "idle").study_id
        study_requests.note(shared_database, study_id, None, f"note of {path}", asked_by="ada")
        assert api.get(path, headers={"If-None-Match": tag}).status_code == 200
    tag = api.get("/studies").headers["etag"]
    assert api.get("/studies", headers={"If-None-Match": tag}).status_code == 304


def test_a_place_in_the_queue_changes_the_tag(api: Api, shared_database: Database) -> None:
    with shared_database.engine.begin() as connection:
        for name in ("first", "second"):
            made = study_records.create(connection, make_spec(name=name))
            submissions.submit(connection, made.study_id)
    behind = api.get("/studies/second")
    assert behind.json()["submission"]["position"] == 2
    unchanged = {"If-None-Match": behind.headers["etag"]}
    assert api.get("/studies/second", headers=unchanged).status_code == 304
    with shared_database.engine.begin() as connection:
        study_records.remove(connection, get_study(shared_database, "first").study_id, "ada")
    assert api.get("/studies/second", headers=unchanged).json()["submission"]["position"] == 1


def test_a_study_that_optuna_runs_is_always_read(api: Api, shared_database: Database) -> None:
    study = optuna.create_study(storage=PgStorage(shared_database), study_name="optuna")
    trial = study.ask()
    path = "/studies/optuna/trials/0/curve"
    tag = api.get(path).headers["etag"]
    assert api.get(path, headers={"If-None-Match": tag}).status_code == 304
    trial.report(0.5, 0)
    points = api.get(path, headers={"If-None-Match": tag}).json()["points"]
    assert [point["value"] for point in points] == [0.5]


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def test_a_repeated_request_is_carried_out_once(api: Api) -> None:
    more = {"kind": "extend", "payload": {"trials": 5}}
    before = api.get("/studies/idle").json()["budget"]["trials"]
    first = api.post("/studies/idle/commands", json=more, headers=key("a"))
    again = api.post("/studies/idle/commands", json=more, headers=key("a"))
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert api.get("/studies/idle").json()["budget"]["trials"] == before + 5
    other = api.post("/studies/idle/commands", json={"kind": "pause"}, headers=key("a"))
    assert other.status_code == 422
    assert "another request" in other.json()["detail"]


def test_repeats_at_the_same_time_are_carried_out_once(api: Api) -> None:
    more = {"kind": "extend", "payload": {"trials": 7}}
    before = api.get("/studies/idle").json()["budget"]["trials"]
    with ThreadPoolExecutor(8) as pool:
        sent = [
            pool.submit(api.post, "/studies/idle/commands", json=more, headers=key("b"))
            for _ in range(8)
        ]
    assert {answer.result().status_code for answer in sent} == {200}
    assert api.get("/studies/idle").json()["budget"]["trials"] == before + 7


def test_a_request_that_failed_is_carried_out_when_it_is_repeated(api: Api) -> None:
    new = {"spec": make_spec(name="later").model_dump(mode="json", exclude_defaults=True)}
    new["spec"]["warm_start"] = ["earlier"]
    assert api.post("/studies", json=new, headers=key("c")).status_code == 404
    earlier = {"spec": {**new["spec"], "name": "earlier", "warm_start": []}}
    assert api.post("/studies", json=earlier).status_code == 201
    made = api.post("/studies", json=new, headers=key("c"))
    assert made.status_code == 201
    assert api.post("/studies", json=new, headers=key("c")).json() == made.json()


def test_a_request_whose_server_died_is_carried_out_again(
    api: Api, shared_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesvc.web.api.idempotency.WAIT_S", 0.0)
    note = {"text": "after the crash"}
    api.put("/studies/idle/note", json=note, headers=key("d"))
    with shared_database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE answers SET status = NULL, body = NULL WHERE key = 'd'")
    waiting = api.put("/studies/idle/note", json=note, headers=key("d"))
    assert waiting.status_code == 409
    with shared_database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE answers SET created_at = now() - interval '1 hour' WHERE key = 'd'"
        )
    assert api.put("/studies/idle/note", json=note, headers=key("d")).status_code == 200


def test_a_command_whose_server_died_before_it_answered_is_not_recorded_twice(
    api: Api, shared_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 58."""

    def die(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr("tunesvc.web.api.idempotency.WAIT_S", 0.0)
    more = {"kind": "extend", "payload": {"trials": 3}}
    before = api.get("/studies/idle").json()["budget"]["trials"]
    with monkeypatch.context() as dying:
        dying.setattr("tunesvc.db.stored_answers.store", die)
        died = api.post("/studies/idle/commands", json=more, headers=key("e"))
        assert died.status_code == 500
    with shared_database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE answers SET created_at = now() - interval '1 hour' WHERE key = 'e'"
        )
    answer = api.post("/studies/idle/commands", json=more, headers=key("e"))
    assert answer.status_code == 200
    assert "extend by 3 trials" in answer.json()
    assert api.get("/studies/idle").json()["budget"]["trials"] == before + 3


def test_answers_are_forgotten_after_a_day(shared_database: Database) -> None:
    with shared_database.engine.begin() as connection:
        assert stored_answers.claim(connection, "eve", "old", b"1") is None
        stored_answers.store(connection, "eve", "old", 200, "answer")
        connection.exec_driver_sql(
            "UPDATE answers SET created_at = now() - interval '25 hours' WHERE key = 'old'"
        )
    with shared_database.engine.begin() as connection:
        assert stored_answers.claim(connection, "eve", "old", b"2") is None


def test_a_study_is_created_from_a_file(api: Api) -> None:
    text = (
        "name: filed\ncommand: a\nmetric: loss\nparameters: {x: {min: 0.0, max: 1.0}}\nbudget: 5\n"
    )
    yaml = {"Content-Type": "application/yaml"}
    made = api.post("/studies?folder=/srv", content=text, headers=yaml)
    assert made.status_code == 201
    assert (made.json()["source_text"], made.json()["source_dir"]) == (text, "/srv")
    wrong = api.post("/studies", content=text.replace("budget: 5", "budgets: 5"), headers=yaml)
    assert wrong.status_code == 422
    assert "did you mean `budget`" in wrong.json()["detail"]


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    answer = api.post("/studies", json={"text": "x" * (BODY_MAX + 1)})
    assert answer.status_code == 413


def test_a_database_that_is_away_is_worth_another_try(
    api: Api, server: DashboardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("nothing listens there")

    monkeypatch.setattr("tunesvc.queries.studies.list_studies", away)
    answer = api.get("/studies")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    with (
        Client(server.url, server.new_token(), retry_s=0.3) as client,
        pytest.raises(DatabaseUnavailable, match="nothing listens there"),
    ):
        client.studies.page()


def test_a_mistake_of_ours_is_a_problem_without_details(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise RuntimeError("the password is secret")

    monkeypatch.setattr("tunesvc.queries.studies.list_studies", wrong)
    answer = api.get("/studies")
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "secret" not in answer.text


def test_a_server_that_is_not_there_is_named(server: DashboardServer) -> None:
    with (
        Client("http://127.0.0.1:9", "token", retry_s=0.0) as client,
        pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9 cannot be reached"),
    ):
        client.studies.page()
    with (
        Client(f"{server.url}/nothing", "token") as client,
        pytest.raises(ServerError, match="is this the address of a tunesvc server"),
    ):
        client.studies.page()
    for address in ("tune.example.org", "ftp://tune.example.org", "http://user:word@host"):
        with pytest.raises(ServerError, match="write https://HOST") as raised:
            Client(address)
        assert "word" not in str(raised.value)


def events_of(api: Api, path: str, take: int, after: str = "") -> list[ServerEvent]:
    headers = {"Last-Event-ID": after} if after else {}
    with api.stream("GET", path, headers=headers, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = read_events(answer.iter_lines(), after)
        return [next(events) for _ in range(take)]


@pytest.fixture
def change(server: DashboardServer) -> Callable[[str], None]:
    """Announce a change of a study as the watcher does."""
    hub: EventHub = server.hub

    def change(name: str) -> None:
        study_id = get_study(server.app.state.database, name).study_id
        hub.changed(frozenset({study_id}))

    return change


def test_events_continue_after_the_last_one(api: Api, change: Callable[[str], None]) -> None:
    (opened,) = events_of(api, "/events", 1)
    assert opened.name == "position"
    change("bowl")
    change("idle")
    _, missed = events_of(api, "/events", 2, after=opened.id)
    assert missed.name == "changed"
    assert set(json.loads(missed.data)["studies"]) >= {"bowl", "idle"}
    _, only = events_of(api, "/events?study=idle", 2, after=opened.id)
    assert json.loads(only.data)["studies"] == ["idle"]
    later = threading.Timer(0.3, change, ["bowl"])
    later.start()
    events = events_of(api, "/events", 2, after=missed.id)
    assert "bowl" in json.loads(events[-1].data)["studies"]


@pytest.mark.parametrize("position", ["0123abcd-3", "nonsense", "-1"])
def test_a_position_of_another_server_is_a_gap(api: Api, position: str) -> None:
    (opened,) = events_of(api, "/events", 1, after=position)
    assert opened.name == "gap"
    assert opened.id


def test_events_are_read_as_browsers_read_them() -> None:
    lines = [
        ": comment",
        "",
        "event: a",
        "data: 1",
        "data:2",
        "id: x",
        "",
        "data: 3",
        "",
        "data: cut",
    ]
    assert list(read_events(lines)) == [
        ServerEvent("a", "1\n2", "x"),
        ServerEvent("message", "3", "x"),
    ]
