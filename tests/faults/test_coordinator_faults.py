"""Clocks that are wrong, and connections that are lost between two looks for commands."""

from __future__ import annotations

import ast
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

import tunesvc
from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import COMMANDS_S, SAMPLER_ERRORS_MAX
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import LeaseLost, StudyBusy
from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler

DAY_S = 86_400.0
SHOWN_ONLY = {
    "util/formatting.py",
    "charts/report/study_report.py",
    "views/study_card.py",
    "preparation/preparing.py",
    "web/live/watcher.py",
    "execution/objectives/optuna_trial_storage.py",
    "cli/groups/people.py",
    "client/follower.py",
}
"""Modules that look at the wall clock to show it, or to hand it to user code."""
OF_OTHERS = {
    "artifacts/artifact_store.py",
    "artifacts/object_store.py",
    "service/artifact_collector.py",
    "web/rate_limits.py",
}
"""Modules that compare it with times of others: of an object store's objects, which are collected a
day after an upload may have begun, and of the library that counts requests."""


@pytest.mark.parametrize("off_s", [-DAY_S, DAY_S])
def test_leases_hold_when_a_machines_clock_is_a_day_off(
    database: Database, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    """Fault 28: a second coordinator, whose clock is right or wrong, judges a lease by the
    database's."""
    right = time.time
    simulation = Simulation(database, make_spec(budget={"trials": 12}, parallelism=4))
    simulation.share_cluster()
    first = simulation.start(owner="right")
    for _ in range(10):
        first.step()
    monkeypatch.setattr(time, "time", lambda: right() + off_s)
    with pytest.raises(StudyBusy):
        simulation.start(owner="wrong")
    first.step()
    simulation.crash()
    second = simulation.start(owner="wrong")
    with pytest.raises(LeaseLost):
        for _ in range(50):
            first.step()
    assert second.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT count(*), max(number) FROM attempts") == [(12, 1)]


def test_no_decision_looks_at_the_wall_clock() -> None:
    """Fault 28: intervals come from monotonic clocks, moments from the database."""
    root = Path(tunesvc.__file__).parent
    wall = {
        f"{time.__name__}.time",
        f"{datetime.__name__}.now",
        "datetime.datetime.now",
        "datetime.utcnow",
    }
    users = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in wall
    }
    assert users == SHOWN_ONLY | OF_OTHERS


def test_a_command_is_executed_although_every_connection_was_lost_before(
    database: Database,
) -> None:
    """Fault 29: commands are polled for; no LISTEN has to be kept alive."""
    simulation = Simulation(database, make_spec(), lambda _: curve(*[1.0] * 1000))
    coordinator = simulation.start()
    coordinator.step()
    with database.engine.begin() as connection:
        study_records.request(connection, simulation.record.study_id, "stop", {}, "user")
    simulation.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    began_s = simulation.clock.now()
    closings = (coordinator.step() for _ in range(200))
    closing = next(closing for closing in closings if closing is not None)
    assert closing.state is StudyState.STOPPED
    assert simulation.clock.now() - began_s < 10 * COMMANDS_S


def test_a_sampler_that_fails_again_and_again_pauses_the_study_and_a_resume_continues(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 41: proposals of that time are drawn at random, with that reason."""
    draw = TPESampler.sample_relative

    def draw_twice(
        self: TPESampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> Any:
        if trial.number >= 2:
            raise ValueError("out of ideas")
        return draw(self, study, trial, space)

    monkeypatch.setattr(TPESampler, "sample_relative", draw_twice)
    sampler = {"name": "tpe", "seed": 1}
    simulation = Simulation(
        database, make_spec(sampler=sampler, parallelism=1, budget={"trials": 20})
    )
    closing = simulation.run()
    assert closing.state is StudyState.PAUSED
    assert closing.reason.startswith(f"the sampler failed {SAMPLER_ERRORS_MAX} times in a row: ")
    assert simulation.states() == {"complete": 2 + SAMPLER_ERRORS_MAX}
    assert simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'sampler'") == [
        (SAMPLER_ERRORS_MAX,)
    ]
    drawn = simulation.recorder.texts("warning")[-1]
    assert drawn.startswith("drawn at random, because sampler tpe raised ")
    assert simulation.run().state is StudyState.PAUSED, "tried again, and no more"
