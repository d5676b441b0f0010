"""What somebody asks of a running study, on a real database with simulated workers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.simulation import Simulation
from tests.specs import make_spec
from tunesvc.store import studies
from tunesvc.store.database import Database
from tunesvc.store.states import StudyState


def ask(simulation: Simulation, kind: str, payload: Mapping[str, object] | None = None) -> None:
    with simulation.database.engine.begin() as connection:
        studies.request(connection, simulation.record.study_id, kind, payload or {}, "test")


def test_a_pause_lets_running_trials_finish_and_a_resume_goes_on(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, "pause")
    closing = coordinator.run()
    simulation.ledger.release()
    assert closing.state is StudyState.PAUSED
    assert simulation.sql("SELECT state FROM studies") == [("paused",)]
    assert "running" not in simulation.states()
    assert sum(simulation.states().values()) < 10
    simulation.run()
    assert simulation.states() == {"complete": 10}


@pytest.mark.parametrize("kind", ["stop", "pause"])
def test_a_request_that_came_too_late_for_its_run_does_not_end_the_next_one(database: Database, kind: str) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    simulation.crash()
    ask(simulation, kind)
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT answer FROM commands") == [("the run that this was meant for had ended",)]


@pytest.mark.parametrize(("kind", "state"), [("stop", StudyState.STOPPED), ("pause", StudyState.PAUSED)])
@pytest.mark.parametrize("seen", [True, False])
def test_a_request_whose_coordinator_died_is_carried_out_by_the_standby(
    database: Database, kind: str, state: StudyState, seen: bool
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 1000}))
    simulation.share_cluster()
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, kind)
    if seen:
        while "by request" not in " ".join(simulation.recorder.texts("study")):
            coordinator.step()
        assert simulation.sql("SELECT done_at FROM commands") == [(None,)]
    simulation.crash()
    assert simulation.start(standby=True).run().state is state
    assert simulation.sql("SELECT done_at IS NOT NULL, answer FROM commands") == [(True, "")]
    assert simulation.sql("SELECT state FROM studies") == [(state,)]
    assert sum(simulation.states().values()) < 100


def test_a_pause_that_is_taken_back_says_so_and_the_study_goes_on(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    ask(simulation, "pause")
    while not simulation.recorder.texts("study"):
        coordinator.step()
    ask(simulation, "resume")
    assert coordinator.run().state is StudyState.FINISHED
    assert simulation.sql("SELECT kind, answer FROM commands ORDER BY command_id") == [
        ("pause", "taken back"),
        ("resume", ""),
    ]


def test_a_study_that_is_interrupted_while_it_is_being_paused_stays_paused(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    coordinator = simulation.start()
    coordinator.step()
    ask(simulation, "pause")
    while not simulation.recorder.texts("study"):
        coordinator.step()
    simulation.interrupt.set()
    assert coordinator.run(simulation.interrupt).state is StudyState.PAUSED
    simulation.ledger.release()
    assert simulation.states()["running"] > 0
    simulation.interrupt.clear()
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 10}


def test_a_stop_ends_what_runs(database: Database) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 1000}))
    coordinator = simulation.start()
    for _ in range(6):
        coordinator.step()
    ask(simulation, "stop")
    assert coordinator.run().state is StudyState.STOPPED
    assert "running" not in simulation.states()


def test_an_extended_study_runs_that_many_trials_more(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    simulation.run()
    ask(simulation, "extend", {"trials": 5})
    simulation.run()
    assert simulation.states() == {"complete": 15}
    assert simulation.sql("SELECT spec->'budget'->>'trials' FROM studies") == [("15",)]


def test_an_enqueued_trial_runs_with_its_values_and_a_wrong_one_is_answered(database: Database) -> None:
    simulation = Simulation(database, make_spec())
    ask(simulation, "enqueue", {"x": 0.3, "n": 2})
    ask(simulation, "enqueue", {"y": 1})
    simulation.run()
    answers = simulation.sql("SELECT answer, done_at IS NOT NULL FROM commands ORDER BY command_id")
    assert answers[0] == ("trial 0 is next", True)
    assert "no parameter 'y'" in str(answers[1][0])
    best = simulation.recorder.snapshots[-1].best
    assert best is not None
    assert (best.number, best.params) == (0, {"x": 0.3, "n": 2})
