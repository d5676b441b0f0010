"""Alerts: raised once for each occasion, delivered through Apprise to a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.client.local.local_client import LocalClient
from tunesvc.db import alerts, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError, StudyNotFound
from tunesvc.service.alert_sender import AlertSender, check_address

pytest.importorskip("apprise")


class Inbox:
    """A web hook on this machine."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.status = 200
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if inbox.status == 200:
                    inbox.messages.append(json.loads(body))
                self.send_response(inbox.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://user:planted-secret@127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def submit(database: Database, name: str, user: str = "ann", trials: int = 10) -> int:
    with database.engine.begin() as connection:
        study_id = study_records.create(
            connection, make_spec(name=name, budget={"trials": trials})
        ).study_id
        submissions.submit(connection, study_id, submitted_by=user)
    return study_id


def execute(database: Database, statement: str, **values: object) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def add(database: Database, url: str, **options: object) -> int:
    with database.engine.begin() as connection:
        return alerts.add_target(connection, "ann", url, **options)  # type: ignore[arg-type]


def end(database: Database, study: int, state: str, reason: str) -> None:
    execute(
        database,
        "UPDATE studies SET state = :state, reason = :reason, ended_at = now() WHERE study_id = :s",
        state=state,
        reason=reason,
        s=study,
    )


def test_each_end_is_delivered_once_by_however_many_servers(
    database: Database, inbox: Inbox
) -> None:
    studies = {name: submit(database, name) for name in ("good", "bad", "hit")}
    submit(database, "others", user="bob")
    add(database, inbox.url)
    end(database, studies["good"], "finished", "10 trials")
    end(database, studies["bad"], "failed", "every trial failed")
    end(database, studies["hit"], "finished", "trial 3 reached the target")
    for _ in range(2):
        AlertSender(database).deliver_due()
    found = {(message["title"], message["message"]) for message in inbox.messages}
    assert found == {
        ("good: finished", "10 trials"),
        ("bad: failed", "every trial failed"),
        ("hit: reached its target", "trial 3 reached the target"),
    }
    assert len(inbox.messages) == 3


def test_a_study_that_ends_again_is_another_occasion(database: Database, inbox: Inbox) -> None:
    study = submit(database, "good")
    add(database, inbox.url, study_id=study, kinds=["finished"])
    for reason in ("10 trials", "20 trials"):
        end(database, study, "finished", reason)
        AlertSender(database).deliver_due()
    assert [message["message"] for message in inbox.messages] == ["10 trials", "20 trials"]


def test_a_budget_that_is_nearly_spent_and_a_stall_are_reported(
    database: Database, inbox: Inbox
) -> None:
    study = submit(database, "long")
    add(database, inbox.url)
    execute(database, "UPDATE studies SET state = 'running' WHERE study_id = :s", s=study)
    for number in range(9):
        execute(
            database,
            "INSERT INTO trials (trial_id, study_id, number, state) VALUES (:t, :s, :n, 'complete')",
            t=(study << 32) + number,
            s=study,
            n=number,
        )
    execute(
        database,
        "INSERT INTO attempts (trial_id, number, token, state, ended_at, failure, message) "
        "VALUES (:t, 1, 1, 'lost', now(), 'stalled', 'no heartbeat for 60 s')",
        t=study << 32,
    )
    AlertSender(database).deliver_due()
    found = sorted((message["title"], message["message"]) for message in inbox.messages)
    assert found == [
        ("long: a trial stalled", "trial 0: no heartbeat for 60 s"),
        ("long: budget nearly spent", "90 % of the budget is spent"),
    ]


def test_a_refused_delivery_is_tried_again_and_its_error_names_no_secret(
    database: Database, inbox: Inbox
) -> None:
    study = submit(database, "good")
    add(database, inbox.url)
    end(database, study, "finished", "10 trials")
    inbox.status = 500
    AlertSender(database).deliver_due()
    with database.engine.connect() as connection:
        (target,) = alerts.list_targets(connection, "ann")
    assert "did not accept it" in target.error
    assert "planted-secret" not in repr(target)
    inbox.status = 200
    assert AlertSender(database).deliver_due() == 0  # not before its time
    execute(database, "UPDATE deliveries SET retry_at = now()")
    AlertSender(database).deliver_due()
    assert [message["title"] for message in inbox.messages] == ["good: finished"]


def test_what_had_ended_before_a_target_was_added_is_no_news(
    database: Database, inbox: Inbox
) -> None:
    study = submit(database, "old")
    first = add(database, inbox.url, study_id=study, kinds=["failed"])
    end(database, study, "finished", "10 trials")
    AlertSender(database).deliver_due()
    add(database, inbox.url)
    AlertSender(database).deliver_due()
    assert inbox.messages == []
    with database.engine.begin() as connection:
        assert not alerts.remove_target(connection, "bob", first)
        assert alerts.remove_target(connection, "ann", first)


def test_two_targets_that_are_added_at_once_are_both_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TARGETS_MAX", 1)

    def add() -> int:
        with database.engine.begin() as connection:
            return alerts.add_target(connection, "ann", "json://127.0.0.1/hook")

    with ThreadPoolExecutor(1) as other, database.engine.begin() as connection:
        alerts.add_target(connection, "ann", "json://127.0.0.1/hook")
        second = other.submit(add)
        wait({second}, timeout=0.3)
        connection.commit()
        with pytest.raises(SpecError, match="1 alert targets already"):
            second.result(10)


def test_a_wrong_target_is_refused_with_the_remedy(database: Database) -> None:
    with pytest.raises(SpecError, match="no address that Apprise knows"):
        check_address("nothing-like-it://x")
    check_address("json://127.0.0.1/hook")
    with pytest.raises(SpecError, match="there is no alert 'finish': choose from finished"):
        add(database, "json://127.0.0.1", kinds=["finish"])


@pytest.mark.parametrize(
    "address",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general?template=/etc/passwd",
        "fcm://project@key/device?KeyFile=file:///root/key.json",
        "mailto://user:password@example.org?pgpkey=/root/key.asc",
    ],
)
def test_an_address_reads_no_file_of_the_server(address: str) -> None:
    with pytest.raises(SpecError, match="alerts read no files of the server"):
        check_address(address)


def test_a_user_adds_tests_and_removes_targets_through_a_client(
    database: Database, inbox: Inbox
) -> None:
    submit(database, "good")
    client = LocalClient(database, "ann")
    target = client.alerts.add(inbox.url, study="good", kinds=["failed"])
    assert client.alerts.test(target) == ""
    assert inbox.messages[0]["title"] == "tunesvc"
    (listed,) = client.alerts.targets()
    assert (listed.study, listed.kinds) == ("good", ("failed",))
    with pytest.raises(SpecError, match="no alert target"):
        LocalClient(database, "bob").alerts.test(target)
    client.alerts.remove(target)
    assert client.alerts.targets() == ()
    with pytest.raises(StudyNotFound):
        client.alerts.add(inbox.url, study="none")
