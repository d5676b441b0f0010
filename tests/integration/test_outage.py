"""A database that goes away under a running study, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.step_committer import DELAYS_S
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import DatabaseUnavailable


def test_a_study_waits_for_its_database_and_continues_with_nothing_lost(
    database: Database, set_away: Callable[[bool], None]
) -> None:
    """Faults 3 and 4: whatever the moment, every trial and every report is there once."""
    simulation = Simulation(database, make_spec(budget={"trials": 12}, parallelism=4))
    coordinator = simulation.start()
    closing, steps = None, 0
    while closing is None:
        steps += 1
        if steps % 4 == 0:
            set_away(True)
            for _ in range(5):
                assert coordinator.step() is None
            assert simulation.recorder.snapshots[-1].state == "waiting"
            assert "the database is away: " in simulation.recorder.snapshots[-1].reason
            set_away(False)
        closing = coordinator.step(wait_s=DELAYS_S[-1])
    assert closing.state is StudyState.FINISHED
    assert simulation.states() == {"complete": 12}
    assert simulation.sql("SELECT count(*), count(DISTINCT (trial_id, step)) FROM reports") == [
        (60, 60)
    ]
    assert simulation.sql("SELECT count(*), max(number) FROM attempts") == [(12, 1)]
    warnings = simulation.recorder.texts("warning")
    assert len(warnings) == steps // 4
    assert all(
        "terminating connection" in text or "not currently accepting" in text for text in warnings
    )
    assert simulation.recorder.texts("study")[-2].startswith("the database is back after ")


def test_tries_grow_rarer_up_to_a_bound(
    database: Database, set_away: Callable[[bool], None]
) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    set_away(True)
    tries_s = []
    while simulation.clock.now() < 60:
        before = simulation.clock.now()
        coordinator.step(wait_s=60.0)
        tries_s.append(simulation.clock.now() - before)
    assert tries_s[-1] == DELAYS_S[-1]
    assert [pause for pause in tries_s if pause > 0][: len(DELAYS_S)] == pytest.approx(
        list(DELAYS_S)
    )
    set_away(False)


def test_ctrl_c_during_an_outage_ends_the_run_and_says_what_holds(
    database: Database, set_away: Callable[[bool], None]
) -> None:
    simulation = Simulation(database, make_spec())
    coordinator, interrupt = simulation.start(), threading.Event()
    set_away(True)
    coordinator.step()
    interrupt.set()
    with pytest.raises(
        DatabaseUnavailable,
        match="interrupted while the database is away: .* `tune resume test` continues",
    ):
        coordinator.run(interrupt)
    set_away(False)
    simulation.crash()
    assert simulation.run().state is StudyState.FINISHED
