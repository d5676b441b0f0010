"""Every action, taken in a browser on studies that a coordinator runs, and what has become of it in the database.

One server, one database, one page of a browser and one running study for all of them; its workers are simulated.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.simulation import Simulation, curve
from tests.specs import make_spec
from tests.web.conftest import Dashboard
from tests.web.test_actions import ask, done, hold, step_until
from tunesvc.coordinator.loop import Coordinator
from tunesvc.execute.executor import Launch, Payload
from tunesvc.store.database import Database
from tunesvc.web.forms import Ask


def slow(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Five reports, of which the last is best where x is largest."""
    return curve(*(2.0 - float(launch.params["x"]) + 1.0 / (1 + step) for step in range(5)), every_s=4.0)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Running:
    """A study that runs as long as it is stepped."""

    simulation: Simulation
    coordinator: Coordinator

    @property
    def study_id(self) -> int:
        """Its id."""
        return self.simulation.record.study_id

    def until(self, sql: str) -> None:
        """Step until a query, in which `:id` is the study, is true."""
        step_until(self.simulation, self.coordinator, sql.replace(":id", str(self.study_id)))

    def number(self, sql: str) -> int:
        """The number of a trial, as a condition names it."""
        found = self.simulation.sql(f"SELECT max(number) FROM trials WHERE study_id = {self.study_id} AND {sql}")
        return int(found[0][0])  # type: ignore[call-overload]


def run(database: Database, name: str) -> Running:
    """Start a study; there are trials that are complete, and others that run and have reported."""
    spec = make_spec(name=name, budget={"trials": 100, "wall": "10h"}, parallelism=2)
    simulation = Simulation(database, spec, slow)
    running = Running(simulation, simulation.start())
    running.until("SELECT count(*) >= 2 FROM trials WHERE study_id = :id AND state = 'complete'")
    running.until(f"SELECT count(*) = 2 FROM trials WHERE study_id = :id AND {REPORTED}")
    return running


REPORTED = "state = 'running' AND trial_id IN (SELECT trial_id FROM reports)"


@pytest.fixture(scope="module")
def running(shared_database: Database) -> Running:
    return run(shared_database, "bowl")


@dataclass(frozen=True)
class Action:
    """What somebody does, and what is true of the study once its coordinator has carried it out."""

    kind: str
    label: str
    button: str
    effect: str
    fill: Callable[[Locator], None] = lambda dialog: None
    trial: str = ""
    """A condition for the trial that it is about; empty: it is about the study. Its number is `:number`."""
    told: str = "the coordinator test carries it out"


def typed(**fields: str) -> Callable[[Locator], None]:
    """Write into the fields of a dialog, by their names."""

    def fill(dialog: Locator) -> None:
        for name, text in fields.items():
            dialog.locator(f"[name={name}]").first.fill(text)

    return fill
