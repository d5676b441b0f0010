"""Studies on a shared cluster: they use what they are granted, and make room without losing work."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.coordinator.slot_grant import SlotGrant
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Checkpointed, Finished, Launch, Payload, Reported
from tunesvc.testing.simulated_executor import SimulatedExecutor

STEPS = 9


def saving(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Report every second; save a checkpoint with every third step."""
    first = 0 if launch.checkpoint is None else int(launch.checkpoint.rpartition("/")[2]) + 1
    for step in range(first, STEPS):
        yield 1.0, Reported(step, {"loss": float(launch.params["x"]) + 1 / (1 + step)})
        if step % 3 == 2:
            yield 0.0, Checkpointed(f"/shared/{launch.trial_number}/{step}", step)
    yield 1.0, Finished()


def unsaved(launch: Launch) -> Iterable[tuple[float, Payload]]:
    for step in range(STEPS):
        yield 1.0, Reported(step, {"loss": 1.0})
    yield 1.0, Finished()


class FewWorkers(SimulatedExecutor):
    """An executor of which the workers of most slots are still to start."""

    def slots(self) -> int:
        return 4


def simulation(database: Database, script: object = saving, trials: int = 8) -> Simulation:
    spec = make_spec(budget={"trials": trials}, pruner={"name": "none"})
    return Simulation(database, spec, script, slots=4)  # type: ignore[arg-type]


def running(simulation: Simulation) -> int:
    ((count,),) = simulation.sql(
        "SELECT count(*) FROM attempts WHERE state IN ('opened', 'running')"
    )
    return int(count)


def run_until(coordinator: Coordinator, simulation: Simulation, clock_s: float) -> None:
    while simulation.clock.now() < clock_s:
        assert coordinator.step() is None


def finish(coordinator: Coordinator) -> None:
    for _ in range(5_000):
        if coordinator.step() is not None:
            return
    raise AssertionError("the study does not end")


def test_a_study_never_runs_more_trials_than_it_is_granted(database: Database) -> None:
    study = simulation(database)
    coordinator = study.start()
    coordinator.grant = SlotGrant(slots=2)
    while coordinator.step() is None:
        assert running(study) <= 2
    assert study.states() == {"complete": 8}


def test_a_study_that_is_granted_nothing_waits_and_begins_when_it_is(database: Database) -> None:
    study = simulation(database)
    coordinator = study.start()
    coordinator.grant = SlotGrant(slots=0)
    for _ in range(20):
        coordinator.step()
    assert study.states() == {}
    coordinator.grant = SlotGrant()
    finish(coordinator)
    assert study.states() == {"complete": 8}


def test_trials_make_room_at_their_next_checkpoint_and_continue_from_it(
    database: Database,
) -> None:
    study = simulation(database)
    coordinator = study.start()
    run_until(coordinator, study, 1.5)
    assert running(study) == 4
    asked_s = study.clock.now()
    coordinator.grant = SlotGrant(slots=1, ceiling=1, reason="study 'demo' is urgent")
    while running(study) > 1:
        coordinator.step()
    assert study.clock.now() - asked_s <= 3 + 1 + 1  # a checkpoint interval, a report, a step
    run_until(coordinator, study, study.clock.now() + 2)
    assert running(study) == 1
    coordinator.grant = SlotGrant()
    finish(coordinator)
    assert study.states() == {"complete": 8}
    repeated = study.sql("SELECT count(*) FROM reports WHERE superseded")
    assert repeated[0][0] <= 3  # of each trial at most the report at which it noticed the stop
    reasons = study.sql("SELECT DISTINCT reason FROM decisions WHERE kind = 'pause'")
    assert [row[0] for row in reasons] == ["makes room: study 'demo' is urgent"]
    failures = study.sql("SELECT count(*) FROM attempts WHERE failure IS NOT NULL")
    assert failures[0][0] == 0


def test_a_trial_that_saves_no_checkpoint_is_not_stopped(database: Database) -> None:
    study = simulation(database, unsaved, trials=4)
    coordinator = study.start()
    run_until(coordinator, study, 1.5)
    coordinator.grant = SlotGrant(slots=1, ceiling=1, reason="study 'demo' is urgent")
    finish(coordinator)
    assert study.states() == {"complete": 4}
    attempts = study.sql("SELECT count(*) FROM attempts")
    assert attempts[0][0] == 4


@pytest.mark.parametrize("ceiling", [0, 2])
def test_no_more_trials_make_room_than_have_to(database: Database, ceiling: int) -> None:
    study = simulation(database)
    coordinator = study.start()
    run_until(coordinator, study, 1.5)
    coordinator.grant = SlotGrant(slots=ceiling, ceiling=ceiling, reason="room")
    run_until(coordinator, study, study.clock.now() + 7)
    stopped = study.sql("SELECT count(*) FROM attempts WHERE stop_cause = 'preempt'")
    assert stopped[0][0] == 4 - ceiling
    coordinator.grant = SlotGrant()
    finish(coordinator)
    assert study.states() == {"complete": 8}


def test_attempts_that_have_not_begun_are_taken_back_when_the_grant_becomes_smaller(
    database: Database,
) -> None:
    study = simulation(database)
    coordinator = study.start(FewWorkers(saving, clock=study.clock, slots=1))
    coordinator.grant = SlotGrant(slots=4)
    run_until(coordinator, study, 1.5)
    assert running(study) == 4
    coordinator.grant = SlotGrant(slots=2)
    run_until(coordinator, study, study.clock.now() + 1)
    assert running(study) == 2
    begun = study.sql("SELECT count(*) FROM attempts WHERE state = 'running'")
    assert begun[0][0] == 1  # which continues
    coordinator.grant = SlotGrant()
    finish(coordinator)
    assert study.states() == {"complete": 8}
    repeated = study.sql("SELECT count(*) FROM reports WHERE superseded")
    assert repeated[0][0] == 0
