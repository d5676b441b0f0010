"""Looks at a time: their places, and looks that have to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.served_family import ServedFamily
from tunesvc.champions.served import queue_runner
from tunesvc.db.champions import promotion_deliveries, served_watches
from tunesvc.db.engine.database import Database
from tunesvc.service import watch_schedule
from tunesvc.service.served_look import ServedLook
from tunesvc.service.watch_schedule import WatchSchedule


class Hanging:
    """Preparations that wait until they are interrupted."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    def __call__(self, *arguments: Any, **_: Any) -> None:
        interrupt: threading.Event = arguments[3]
        self.begun += 1
        interrupt.wait(60.0)
        self.ended += 1


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    return Hanging()


@pytest.fixture
def family(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: Hanging
) -> ServedFamily:
    """A family whose data cannot be prepared in finite time."""
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)
    made = ServedFamily(database, tmp_path, monkeypatch)
    monkeypatch.setattr(queue_runner, "prepare_version", hanging)
    made.register()
    return made


@pytest.fixture
def schedule(family: ServedFamily, monkeypatch: pytest.MonkeyPatch) -> Iterator[WatchSchedule]:
    """A schedule that begins looks only when a test calls it."""
    monkeypatch.setattr(watch_schedule, "CHECK_S", 600.0)
    with WatchSchedule(family.database) as made:
        yield made


def wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20.0
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_look_ends_with_its_watch_and_the_next_one_begins(
    family: ServedFamily, schedule: WatchSchedule, hanging: Hanging
) -> None:
    schedule.begin_due()
    wait_for(lambda: hanging.begun == 1)
    schedule.begin_due()
    assert hanging.ended == 0, "it continues while its watch is there"
    family.register(user="bob")
    schedule.begin_due()
    wait_for(lambda: hanging.ended == 1)
    with family.database.engine.begin() as connection:
        served_watches.remove(connection, "shop")


def test_a_look_that_takes_too_long_ends_with_a_problem(
    family: ServedFamily,
    schedule: WatchSchedule,
    hanging: Hanging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule.begin_due()
    wait_for(lambda: hanging.begun == 1)
    monkeypatch.setattr(watch_schedule, "LOOK_MAX_S", 0.0)
    schedule.begin_due()
    wait_for(lambda: bool(family.state.problem))
    assert family.state.problem == "the look took longer than 0 hours"
    assert family.state.failures == 1


def test_looks_that_hang_hold_up_no_deliveries(
    family: ServedFamily,
    schedule: WatchSchedule,
    hanging: Hanging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivered = threading.Event()
    monkeypatch.setattr(watch_schedule, "LOOKS_MAX", 1)
    monkeypatch.setattr(ServedLook, "deliver", lambda _: delivered.set())
    monkeypatch.setattr(promotion_deliveries, "list_due_families", lambda _: ["other"])
    schedule.begin_due()
    wait_for(lambda: hanging.begun == 1)
    wait_for(delivered.is_set)
    with family.database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM watches"))
