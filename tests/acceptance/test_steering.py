"""Requests to a stored study from the command line."""

from __future__ import annotations

import json

from tests.support.command_line import Tune
from tests.support.stored_studies import fill
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study


def request(desk: Tune, *words: str) -> None:
    assert "carries it out" in desk.here(*words)


def test_a_running_study_is_steered(desk: Tune, database: Database) -> None:
    fill(database, 12, name="bowl")
    assert desk.here("tag", "bowl", "one", "two") == "one  two\n"
    assert desk.here("tag", "bowl", "--remove", "one") == "two\n"
    desk.here("note", "bowl", "a good start", "--trial", "0")
    assert "a good start" in desk.here("show", "bowl", "0")
    request(desk, "widen", "bowl", "x=..2.0")
    request(desk, "enqueue", "bowl", "x=0.5")
    request(desk, "enqueue", "bowl", "--near", "3")
    request(desk, "extend", "bowl", "--trials", "5")
    request(desk, "parallelism", "bowl", "3")
    request(desk, "retry", "bowl", "2")
    request(desk, "stop", "bowl")
    (sent,) = json.loads(desk.here("requests", "bowl", "--json", "-n", "1"))
    assert sent["kind"] == "stop"
    assert "widen x" in desk.here("requests", "bowl")
    assert "box:1" in desk.here("doctor", "bowl")
    assert "box:1" in desk.here("rm", "bowl", "--yes", code=4), "it runs there"
    view = get_study(database, "bowl")
    assert (view.tags, view.closing) == (("two",), "stop")


def test_a_study_waits_in_the_queue_until_it_is_paused(desk: Tune) -> None:
    shown = json.loads(desk.here("submit", "bowl.yaml", "--priority", "high", "--json"))
    assert (shown["state"], shown["submission"]["priority"]) == ("queued", "high")
    (share,) = json.loads(desk.here("queue", "--json"))["studies"]
    assert (share["study"], share["reason"]) == ("bowl", "no server has seen the cluster yet")
    assert "bowl" in desk.here("queue")
    assert desk.here("artifacts", "bowl") == ""
    desk.here("pause", "bowl")
    assert json.loads(desk.here("queue", "--json"))["studies"] == []
    assert "queue" in desk.here("resume", "bowl")
    desk.here("stop", "bowl")
    desk.here("rm", "bowl", "--yes")
