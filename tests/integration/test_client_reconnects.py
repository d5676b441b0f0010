"""The client of a server through lost answers and restarts: nothing twice, and nothing missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from tests.support.accounts import Team, make_team
from tests.support.stored_studies import fill
from tunesvc.client.remote.http_client import Client
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import logs
from tunesvc.db.study_records import StudyRecord, find
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding

RUNNING = 9
"""A trial that runs."""


@pytest.fixture
def team(database: Database) -> Team:
    fill(database, 10, running=1, name="bowl")
    return make_team(database)


def study(team: Team) -> StudyRecord:
    with team.database.engine.connect() as connection:
        return find(connection, "bowl")


def write(team: Team, *seqs: int) -> None:
    """Write lines of output as a coordinator does."""
    with team.database.engine.begin() as connection:
        for seq in seqs:
            row = {"trial_id": trial_id(study(team).study_id, RUNNING), "attempt": 1, "seq": seq}
            row |= {"stream": "stdout", "text": f"line {seq}"}
            connection.execute(sa.insert(logs).values(row))
        connection.exec_driver_sql("UPDATE leases SET batch = batch + 1")


def finish(team: Team) -> None:
    with team.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'complete', ended_at = now()")
        connection.exec_driver_sql("UPDATE leases SET batch = batch + 1")


def test_a_command_whose_answer_is_lost_is_recorded_once(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 59: the answer is cut off after the commit."""
    lost: Iterator[bool] = iter([True, True, False])
    send = httpx.Client.send

    def cut(self: httpx.Client, *arguments: object, **options: object) -> httpx.Response:
        answer = send(self, *arguments, **options)  # type: ignore[arg-type]
        if next(lost):
            raise httpx.ReadError("cut off")
        return answer

    with DashboardServer(team.database, accounts=Binding(port=0)) as server:
        client = Client(server.url, team.secrets["admin"])
        with client:
            monkeypatch.setattr(httpx.Client, "send", cut)
            answer = client.commands.send("bowl", "extend", {"trials": 1})
            monkeypatch.undo()
            assert "carries it out" in answer
            rows = client.commands.page("bowl").rows
    assert [row.text for row in rows] == ["extend by 1 trials"]


def test_output_is_followed_across_a_restart_of_the_server(team: Team) -> None:
    """Fault 59."""
    write(team, 1, 2)
    read: list[str] = []
    half = threading.Event()
    with DashboardServer(team.database, accounts=Binding(port=0)) as first:
        port = first.port
        client = Client(first.url, team.secrets["admin"])

        def follow() -> None:
            for row in client.trials.follow("bowl", RUNNING):
                read.append(row.text)
                if len(read) == 2:
                    half.set()

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        assert half.wait(20)
    write(team, 3, 4)
    with DashboardServer(team.database, accounts=Binding(port=port)):
        write(team, 5)
        finish(team)
        following.join(20)
    client.close()
    assert not following.is_alive()
    assert read == [f"line {seq}" for seq in range(1, 6)]
