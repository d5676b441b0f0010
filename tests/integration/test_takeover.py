"""One coordinator after another, and two at a time, over attempts that outlive them.

Simulated workers, real database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from tests.support.simulation import Simulation, curve, quadratic
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import LeaseLost
from tunesvc.execution.executor import AttemptId, Event, Finished, Launch, Lost, Payload, Reported
from tunesvc.policy import StopCause
from tunesvc.testing.simulated_executor import SimulatedExecutor

STEPS_MAX = 5_000


def until_running(simulation: Simulation, coordinator: Coordinator, trials: int) -> None:
    for _ in range(STEPS_MAX):
        if len(simulation.sql("SELECT 1 FROM reports WHERE step = 1")) >= trials:
            return
        assert coordinator.step() is None
    raise AssertionError("did not come so far")


def to_the_end(coordinator: Coordinator) -> Shutdown:
    return next(closing for _ in range(STEPS_MAX) if (closing := coordinator.step()) is not None)


def test_attempts_that_outlive_their_coordinator_are_adopted(database: Database) -> None:
    """Fault 1: no trial is run again, and each report is there once."""
    simulation = Simulation(database, make_spec(budget={"trials": 8}, parallelism=8))
    simulation.share_cluster()
    until_running(simulation, simulation.start(), 8)
    simulation.crash()
    assert simulation.run().state is StudyState.FINISHED
    assert simulation.states() == {"complete": 8}
    assert simulation.sql("SELECT count(*), max(number), min(state) FROM attempts") == [
        (8, 1, "finished")
    ]
    assert simulation.sql("SELECT count(*), count(DISTINCT (trial_id, step)) FROM reports") == [
        (40, 40)
    ]


def test_an_attempt_that_ended_without_a_coordinator_is_heard_by_the_next_one(
    database: Database,
) -> None:
    simulation = Simulation(database, make_spec(budget={"trials": 2}, parallelism=2))
    cluster = simulation.share_cluster()
    until_running(simulation, simulation.start(), 2)
    simulation.crash()
    cluster.advance(simulation.clock.now() + 3600, until=lambda: not cluster.running)
    assert not cluster.running
    simulation.run()
    assert simulation.sql("SELECT count(*) FROM reports") == [(10,)]
    assert simulation.sql(
        "SELECT count(*), max(number) FROM attempts WHERE state = 'finished'"
    ) == [(2, 1)]


def test_what_ended_with_its_coordinator_is_interrupted_and_counts_against_no_limit(
    database: Database,
) -> None:
    simulation = Simulation(
        database, make_spec(budget={"trials": 4}, parallelism=4, retries={"lost": 0})
    )
    until_running(simulation, simulation.start(), 4)
    simulation.crash()
    simulation.run()
    assert simulation.states() == {"complete": 4}
    assert simulation.sql("SELECT state, count(*) FROM attempts GROUP BY state ORDER BY state") == [
        ("finished", 4),
        ("interrupted", 4),
    ]
    assert simulation.sql("SELECT count(*) FROM decisions WHERE kind = 'retry'") == [(0,)]


def test_a_stop_that_its_coordinator_did_not_deliver_is_delivered_by_the_next(
    database: Database,
) -> None:
    simulation = Simulation(
        database, make_spec(budget={"trials": 1}), lambda _: curve(*[1.0] * 500)
    )
    simulation.share_cluster()
    until_running(simulation, simulation.start(), 1)
    simulation.sql("UPDATE attempts SET stop_cause = 'prune'")
    simulation.crash()
    simulation.run()
    assert simulation.states() == {"pruned": 1}
    assert len(simulation.sql("SELECT 1 FROM reports")) < 100


def test_a_coordinator_that_was_frozen_finds_out_and_does_no_harm(database: Database) -> None:
    """Fault 12: what it decided before is refused as a whole, and none of it is done."""
    simulation = Simulation(database, make_spec(budget={"trials": 30}, parallelism=4))
    simulation.share_cluster()
    frozen = simulation.start(owner="frozen")
    until_running(simulation, frozen, 4)
    simulation.crash()
    heir = simulation.start(owner="heir")
    heir.step()
    before = simulation.sql("SELECT count(*) FROM attempts")
    with pytest.raises(LeaseLost):
        for _ in range(100):
            frozen.step()
            heir_has_seen = simulation.sql("SELECT count(*) FROM attempts")
            assert heir_has_seen == before
    to_the_end(heir)
    assert simulation.states() == {"complete": 30}
    assert simulation.sql("SELECT max(number), count(*) FROM attempts") == [(1, 30)]


def test_a_worker_without_a_heartbeat_is_given_up_and_refused_when_it_returns(
    database: Database,
) -> None:
    """Fault 14: by the lease of the attempt, which the database's clock judges."""
    simulation = Simulation(
        database, make_spec(budget={"trials": 1}, parallelism=2, retries={"stalled": 1})
    )
    cluster = simulation.share_cluster()
    coordinator = simulation.start()
    until_running(simulation, coordinator, 1)
    stalled = cluster.running[0]
    cluster.freeze(stalled)
    for _ in range(100):
        coordinator.step()
    assert simulation.sql("SELECT count(*) FROM attempts") == [(1,)], "its lease has not run out"
    simulation.sql("UPDATE attempts SET expires_at = now() - interval '1 second'")
    to_the_end(coordinator)
    assert simulation.states() == {"complete": 1}
    rows = simulation.sql("SELECT number, state, failure, message FROM attempts ORDER BY number")
    assert rows == [
        (1, "lost", "stalled", "no heartbeat from its worker for 600 s (limits.stall)"),
        (2, "finished", None, ""),
    ]


def test_living_attempts_keep_their_leases(database: Database) -> None:
    simulation = Simulation(
        database, make_spec(budget={"trials": 4}, parallelism=4), lambda _: curve(*[1.0] * 50)
    )
    coordinator = simulation.start()
    until_running(simulation, coordinator, 4)
    simulation.sql("UPDATE attempts SET expires_at = now() - interval '1 second'")
    to_the_end(coordinator)
    assert simulation.sql("SELECT count(*), max(number), min(state) FROM attempts") == [
        (4, 1, "finished")
    ]


@pytest.mark.parametrize("kind", ["lost", "node", "preempted", "stalled"])
def test_each_way_of_being_lost_is_counted_by_itself_and_tells_the_sampler_nothing(
    database: Database, kind: str
) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        yield 1.0, Reported(0, {"loss": 1.0})
        yield 1.0, Lost("gone", kind) if launch.attempt.number == 1 else Finished()  # type: ignore[arg-type]

    none = dict.fromkeys(("lost", "node", "preempted", "stalled"), 0)
    simulation = Simulation(
        database, make_spec(budget={"trials": 2}, retries={**none, kind: 1}), script
    )
    simulation.run()
    assert simulation.states() == {"complete": 2}
    assert simulation.sql("SELECT DISTINCT state, failure FROM attempts WHERE number = 1") == [
        ("lost", kind)
    ]


def test_gpu_hours_of_adopted_attempts_are_counted_once(database: Database) -> None:
    spec = make_spec(budget={"trials": 1}, resources={"gpu": 1})
    simulation = Simulation(database, spec, quadratic)
    simulation.share_cluster()
    until_running(simulation, simulation.start(), 1)
    simulation.sql("UPDATE attempts SET started_at = now() - interval '1 hour'")
    simulation.crash()
    simulation.run()
    assert simulation.recorder.snapshots[-1].gpu_hours == pytest.approx(1.0, abs=0.05)


def test_after_a_long_outage_an_attempt_without_a_chance_to_be_heard_does_not_expire(
    database: Database,
) -> None:
    """Fault 3: leases that ran out meanwhile are renewed before any is judged, of workers that
    are quiet too."""
    simulation = Simulation(
        database, make_spec(budget={"trials": 4}, parallelism=4), lambda _: curve(*[1.0] * 90)
    )
    coordinator = simulation.start(Quiet(simulation))
    until_running(simulation, coordinator, 4)
    for _ in range(120):
        coordinator.step()
    simulation.faults.extend(["away"] * 8)
    while len(simulation.faults) > 2:
        coordinator.step()
    simulation.sql("UPDATE attempts SET expires_at = now() - interval '1 second'")
    to_the_end(coordinator)
    assert simulation.sql("SELECT count(*), max(number), min(state) FROM attempts") == [
        (4, 1, "finished")
    ]


class Quiet(SimulatedExecutor):
    """Hears a sign of life from every other attempt at a time, as with workers that speak
    seldom."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation.script, clock=simulation.clock, slots=8)
        self._odd = False

    def heartbeats(self) -> list[AttemptId]:
        self._odd = not self._odd
        return [
            attempt for attempt in super().heartbeats() if (attempt.trial_id % 2 == 1) == self._odd
        ]


def test_a_limit_does_not_judge_an_adopted_attempt_before_it_is_heard(database: Database) -> None:
    """An attempt that ended with its coordinator, a night ago, is interrupted, not too slow."""
    simulation = Simulation(database, make_spec(budget={"trials": 2}, limits={"wall": 60}))
    until_running(simulation, simulation.start(), 2)
    simulation.sql("UPDATE attempts SET started_at = now() - interval '8 hours'")
    simulation.crash()
    coordinator = simulation.start(Late(simulation.script, clock=simulation.clock, slots=8))
    assert to_the_end(coordinator).state is StudyState.FINISHED
    assert simulation.states() == {"complete": 2}
    assert simulation.sql("SELECT DISTINCT state, failure FROM attempts WHERE number = 1") == [
        ("interrupted", None)
    ]


class Late(SimulatedExecutor):
    """Says only after some seconds what runs nowhere."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        if self.cluster.clock.now() < 20:
            self.cluster.clock.advance(self.cluster.clock.now() + timeout_s)
            return []
        return super().events(timeout_s)


def test_gpu_hours_of_an_adopted_attempt_that_only_lives_are_spent_too(database: Database) -> None:
    def silent(_launch: Launch) -> Iterable[tuple[float, Payload]]:
        return [
            (1.0, Reported(0, {"loss": 1.0})),
            (1.0, Reported(1, {"loss": 1.0})),
            (1e6, Finished()),
        ]

    spec = make_spec(budget={"gpu_hours": 1}, resources={"gpu": 1}, parallelism=2)
    simulation = Simulation(database, spec, silent)
    simulation.share_cluster()
    until_running(simulation, simulation.start(), 2)
    simulation.crash()
    coordinator = simulation.start()
    closing = next(
        closing for _ in range(200) if (closing := coordinator.step(wait_s=60.0)) is not None
    )
    assert closing.stop is StopCause.BUDGET
    assert simulation.clock.now() < 3600
    assert simulation.sql("SELECT DISTINCT stop_cause FROM attempts") == [("budget",)]


def test_grace_begins_when_the_stop_is_sent_and_not_when_it_is_decided(database: Database) -> None:
    simulation = Simulation(
        database, make_spec(limits={"grace": 5}, budget={"trials": 2}), lambda _: curve(*[1.0] * 99)
    )
    coordinator = simulation.start()
    until_running(simulation, coordinator, 2)
    simulation.faults.extend(["away"] * 6)
    coordinator.close(Shutdown(StudyState.STOPPED, "enough", StopCause.STUDY_STOPPED))
    to_the_end(coordinator)
    assert simulation.states() == {"pruned": 2}
    assert simulation.sql("SELECT DISTINCT message FROM attempts") == [("",)], "none was killed"
